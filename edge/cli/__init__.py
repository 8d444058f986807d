"""The commands `fieldpost fleet|device|rollout …`."""

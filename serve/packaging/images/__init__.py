"""Images: packages put on a base, for engines and registries."""

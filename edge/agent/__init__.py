"""What runs on a device: small, and at work without a network from what it has on its disk."""

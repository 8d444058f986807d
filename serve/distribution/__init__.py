"""Registries: images up and down over the OCI distribution protocol."""

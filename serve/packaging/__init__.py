"""Packages: environments, deterministic layers, OCI manifests, and unpacking them again."""

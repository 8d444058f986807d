"""Models from a registered file to a running deployment: registry, packages, targets, server."""

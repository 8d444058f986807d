"""Model formats: told from the content of a file, never asked of the user."""

"""Places where packages run."""

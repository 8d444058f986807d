"""What a release settles for every resolution."""

# Files that were uploaded later do not exist for a resolution, so that the same requirements give
# the same lock at any time. Raised with each release (docs/adr/0010).
RELEASE_DATE = "2026-11-21T00:00:00Z"

"""What signed metadata permits, read anew when it has changed."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from edge.security import repository
from edge.security.metadatastore import TIMESTAMP
from edge.security.repository import Repository
from scoring.errors import NotFoundError, VerificationError

LOOK_S: Final = 1.0
"""How often is looked for newer metadata."""


class _Read(NamedTuple):
    timestamp: bytes | None
    releases: Mapping[str, int]
    versions: dict[str, int]


_NOTHING: Final = _Read(None, {}, {})


class SignedPermits:
    """The packages that a repository of signed metadata permits.

    Args:
        source: The repository.
        ticks: A clock that goes forward only, in seconds.
    """

    def __init__(self, source: Repository, *, ticks: Callable[[], float] = time.monotonic) -> None:
        self._source = source
        self._ticks = ticks
        self._read = _NOTHING
        self._looked_at = -LOOK_S

    def release(self, package: str) -> int:
        """The release counter of a package.

        Raises:
            VerificationError: It is not permitted, or the metadata is damaged.
        """
        found = self._newest().releases.get(package)
        if found is None:
            raise VerificationError(
                f"No signed metadata permits the package {package}: devices would refuse it.",
                hint="Permit it with 'fieldpost fleet trust sign'.",
            )
        return found

    def versions(self) -> dict[str, int]:
        """Role to version of the metadata."""
        return dict(self._newest().versions)

    def look_again(self) -> None:
        """Has the next question answered by what is signed then, however new the last answer is."""
        self._looked_at = float("-inf")

    def _newest(self) -> _Read:
        # A rollout asks for each of thousands of devices.
        if self._read is not _NOTHING and self._ticks() - self._looked_at < LOOK_S:
            return self._read
        timestamp = self._source.get(TIMESTAMP)
        self._looked_at = self._ticks()
        if timestamp is None:
            raise VerificationError(
                "This fleet has no signed metadata, and devices run nothing without.",
                hint="Run 'fieldpost fleet trust init'.",
            )
        if timestamp != self._read.timestamp:
            self._read = self._parse(timestamp)
        return self._read

    def _parse(self, timestamp: bytes) -> _Read:
        try:
            trusted = self._source.trusted()
        except NotFoundError as error:
            raise VerificationError(f"The signed metadata is not whole: {error}.") from error
        held = trusted.targets
        found = repository.releases(held) if held is not None else {}
        releases = {package: one.release for package, one in found.items()}
        return _Read(timestamp, releases, trusted.versions())

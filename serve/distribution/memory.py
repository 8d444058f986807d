"""What is remembered between commands: uploads that were begun, and who holds which blob.

Small files in one folder; losing any of them costs time and nothing else.
"""

from __future__ import annotations

import contextlib
import hashlib
import time
from pathlib import Path

import msgspec

from scoring import durable
from scoring.errors import WorkspaceError

MAX_AGE_S = 24 * 3600.0
MAX_HOLDERS = 8
_MAX_FILE_BYTES = 64 << 10


class Begun(msgspec.Struct, frozen=True):
    """An upload that is not complete.

    Attributes:
        location: The address that the registry gave for the rest.
        offset: How many bytes it had then.
        at: When, in seconds since the epoch.
    """

    location: str
    offset: int
    at: float


class Memory:
    """The folder of these files; without one, nothing is remembered.

    Args:
        folder: Made at the first write.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    def begun(self, repository: str, digest: str) -> Begun | None:
        """The upload of a blob to a repository that was begun less than a day ago."""
        data = self._read(self._path("uploads", repository, digest))
        with contextlib.suppress(msgspec.DecodeError, msgspec.ValidationError):
            found = msgspec.json.decode(data, type=Begun)
            if found.offset > 0 and 0 <= time.time() - found.at < MAX_AGE_S:
                return found
        return None

    def begin(self, repository: str, digest: str, location: str, offset: int) -> None:
        """Remembers how far an upload is; the address may be a right to write, so it is private."""
        record = Begun(location=location, offset=offset, at=time.time())
        self._write(self._path("uploads", repository, digest), msgspec.json.encode(record))

    def end(self, repository: str, digest: str) -> None:
        """Forgets an upload."""
        path = self._path("uploads", repository, digest)
        if path is not None:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)

    def holders(self, registry: str, digest: str) -> list[str]:
        """Repositories of a registry that have had a blob, the last one first."""
        data = self._read(self._path("holders", registry, digest))
        return data.decode(errors="replace").split("\n") if data else []

    def holds(self, registry: str, repository: str, digest: str) -> None:
        """Remembers that a repository has a blob."""
        known = self.holders(registry, digest)
        if known[:1] == [repository]:
            return
        names = [repository, *(each for each in known if each != repository)][:MAX_HOLDERS]
        self._write(self._path("holders", registry, digest), "\n".join(names).encode())

    def _path(self, kind: str, *parts: str) -> Path | None:
        if self._folder is None:
            return None
        return self._folder / kind / hashlib.sha256("\0".join(parts).encode()).hexdigest()

    def _read(self, path: Path | None) -> bytes:
        if path is not None:
            with contextlib.suppress(OSError), path.open("rb") as file:
                return file.read(_MAX_FILE_BYTES)
        return b""

    def _write(self, path: Path | None, data: bytes) -> None:
        """Atomic and not synced: a full disk or a lost file costs a second upload."""
        if path is None:
            return
        with contextlib.suppress(OSError, WorkspaceError):
            durable.write_cache(path, data, mode=0o600)

"""The blobs of a device: bytes by digest, whole or on their way.

ROOT/blobs/sha256/HEX             whole: synced and compared before it had its name
ROOT/blobs/.incoming/HEX.part     what has come so far; goes on after a restart
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple, Self

from edge.agent import space
from scoring import digest as digests
from scoring import durable
from scoring.errors import DigestMismatchError, NotFoundError

_PART: Final = ".part"
_STORE: Final = "the device's blobs"
_OLD_PART_S: Final = 7 * 86400.0


class Blob(NamedTuple):
    """What is stored.

    Attributes:
        digest: `sha256:` and 64 hexadecimal digits.
        size: In bytes.
    """

    digest: str
    size: int


class Incoming:
    """A blob on its way in; appended to, then finished. Made by `DeviceBlobs.incoming`.

    Attributes:
        digest: What it has to be.
        size: In the end.
        received: Bytes that are here.
    """

    def __init__(self, part: Path, place: Path, digest: str, size: int) -> None:
        self.digest = digest
        self.size = size
        self._part = part
        self._place = place
        with durable.storage_errors(_STORE):
            self._fd = os.open(part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                self._take_up()
                space.promise(self._fd, size)
            except BaseException:
                os.close(self._fd)
                raise

    def _take_up(self) -> None:
        self._hash = hashlib.sha256()
        self.received = 0
        while chunk := os.read(self._fd, digests.CHUNK_BYTES):
            self._hash.update(chunk)
            self.received += len(chunk)
        if self.received > self.size:
            self.restart()

    def write(self, data: bytes) -> None:
        """Appends.

        Raises:
            DigestMismatchError: It is more than there should be; nothing is kept.
            StorageFullError: No space is left; what was there before is kept.
            WorkspaceError: It cannot be written.
        """
        if self.received + len(data) > self.size:
            self.restart()
            raise _mismatch(self.digest, f"more than {self.size} bytes")
        view = memoryview(data)
        with durable.storage_errors(_STORE):
            while view:
                written = os.write(self._fd, view)
                self._hash.update(view[:written])
                self.received += written
                view = view[written:]

    def restart(self) -> None:
        """Throws away what has come."""
        with durable.storage_errors(_STORE):
            os.ftruncate(self._fd, 0)
            os.lseek(self._fd, 0, os.SEEK_SET)
        self._hash = hashlib.sha256()
        self.received = 0

    def finish(self) -> Blob:
        """Compares, syncs, and gives the blob its name.

        Raises:
            DigestMismatchError: These are other bytes; they are thrown away.
            StorageFullError, WorkspaceError: It cannot be kept.
        """
        found = digests.from_hex(self._hash.hexdigest())
        if self.received != self.size or found != self.digest:
            received = self.received
            self.restart()
            raise _mismatch(self.digest, f"{received} bytes with the digest {found}")
        with durable.storage_errors(_STORE):
            os.fchmod(self._fd, 0o444)
            os.fsync(self._fd)
            self._part.replace(self._place)
            durable.sync_folder(self._place.parent)
        return Blob(self.digest, self.size)

    def close(self) -> None:
        """Lets go of the file; what has come stays for the next time."""
        os.close(self._fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class DeviceBlobs:
    """The store. Any thread of the one agent of a device may use it.

    Args:
        root: A folder; made where it is missing.

    Raises:
        WorkspaceError: It cannot be made or written.
        StorageFullError: No space is left.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folder = root / "blobs" / digests.ALGORITHM
        self.arriving = root / "blobs" / ".incoming"
        self._locks: dict[str, threading.Lock] = {}
        self._guard = threading.Lock()
        with durable.storage_errors(_STORE):
            durable.make_folder(self.folder, mode=0o700)
            durable.make_folder(self.arriving, mode=0o700)
            durable.sweep(self.arriving)

    # -- reading

    def has(self, digest: str) -> bool:
        """Whether the blob is there; its content is not looked at."""
        return self._place(digest).is_file()

    def path(self, digest: str) -> Path:
        """The file that holds the blob, unchecked and not to be written.

        Raises:
            NotFoundError: There is no such blob.
            InvalidNameError: The text is not a digest.
        """
        place = self._place(digest)
        if not place.is_file():
            raise _missing(digest)
        return place

    def open(self, digest: str) -> BinaryIO:
        """The blob's bytes as a file, unchecked; raises like `path`."""
        with durable.storage_errors(_STORE):
            try:
                return self._place(digest).open("rb")
            except FileNotFoundError:
                raise _missing(digest) from None

    def read_bytes(self, digest: str, most: int = 8 << 20) -> bytes:
        """The blob's bytes, checked; for small ones.

        Raises:
            NotFoundError: There is no such blob.
            DigestMismatchError: The file holds other bytes, or more than `most`; it is removed.
        """
        with self.open(digest) as stream, durable.storage_errors(_STORE):
            data = stream.read(most + 1)
        if len(data) > most or digests.of_bytes(data) != digest:
            self.delete(digest)
            raise _damaged(digest)
        return data

    def verify(self, digest: str) -> Blob:
        """Reads all of the blob and compares; raises like `read_bytes`."""
        with self.open(digest) as stream, durable.storage_errors(_STORE):
            found, size = digests.of_stream(stream), stream.tell()
        if found != digest:
            self.delete(digest)
            raise _damaged(digest)
        return Blob(digest, size)

    def remove_damaged(self, wanted: Iterable[str]) -> list[str]:
        """Compares those blobs that are there; the digests of those that had to go."""
        gone = []
        for digest in wanted:
            try:
                if self.has(digest):
                    self.verify(digest)
            except DigestMismatchError:
                gone.append(digest)
        return gone

    def digests(self) -> list[str]:
        """The digests of all blobs."""
        with durable.storage_errors(_STORE):
            names = sorted(path.name for path in self.folder.iterdir())
        found = (f"{digests.ALGORITHM}:{name}" for name in names)
        return [digest for digest in found if digests.is_digest(digest)]

    # -- writing

    def put_bytes(self, data: bytes) -> Blob:
        """Stores a small blob; durable when it returns.

        Raises:
            StorageFullError: No space is left; the store is as it was.
            WorkspaceError: The store cannot be written; it is as it was.
        """
        return self.put_stream((data,))

    def put_stream(self, chunks: Iterable[bytes]) -> Blob:
        """Stores chunks, one after another, as one blob; durable when it returns."""
        hashed, size = hashlib.sha256(), 0
        with durable.storage_errors(_STORE), durable.TemporaryFile(self.arriving) as file:
            for chunk in chunks:
                hashed.update(chunk)
                size += len(chunk)
                file.write(chunk)
            os.fchmod(file.fd, 0o444)
            file.sync()
            file.move(self.folder / hashed.hexdigest())
            durable.sync_folder(self.folder)
        return Blob(digests.from_hex(hashed.hexdigest()), size)

    def lock(self, digest: str) -> threading.Lock:
        """What whoever fetches a blob holds, since two modules may want the same one."""
        with self._guard:
            return self._locks.setdefault(digest, threading.Lock())

    def incoming(self, digest: str, size: int) -> Incoming:
        """A blob that is to come, with what of it has come before.

        Raises:
            StorageFullError: There is no room for it.
            WorkspaceError: It cannot be kept.
        """
        place = self._place(digest)
        return Incoming(self.arriving / f"{place.name}{_PART}", place, digest, size)

    def waiting(self, digest: str) -> int:
        """How many bytes of a blob on its way are here."""
        try:
            return (self.arriving / f"{digests.parse(digest)}{_PART}").stat().st_size
        except FileNotFoundError:
            return 0

    def delete(self, digest: str) -> int:
        """Removes a blob; returns its size, 0 for none there."""
        place = self._place(digest)
        with durable.storage_errors(_STORE):
            try:
                size = place.stat().st_size
                place.unlink()
            except FileNotFoundError:
                return 0
        return size

    def clean(self, keep: Collection[str], *, now: float | None = None) -> int:
        """Removes all other blobs, and parts that nobody has gone on with for a week.

        Args:
            keep: Digests of blobs.
            now: Seconds since the epoch.

        Returns:
            How many bytes were freed.
        """
        freed = sum(self.delete(digest) for digest in self.digests() if digest not in keep)
        now = time.time() if now is None else now
        with durable.storage_errors(_STORE):
            for part in self.arriving.glob(f"*{_PART}"):
                found = part.stat()
                wanted = f"{digests.ALGORITHM}:{part.stem}" in keep
                if not wanted and abs(now - found.st_mtime) > _OLD_PART_S:
                    part.unlink(missing_ok=True)
                    freed += found.st_size
        return freed

    def drop_part(self, digest: str) -> None:
        """Removes what has come of one blob."""
        with durable.storage_errors(_STORE):
            (self.arriving / f"{digests.parse(digest)}{_PART}").unlink(missing_ok=True)

    def drop_parts(self, keep: Collection[str] = ()) -> int:
        """Removes what has come in part, for room; returns how many bytes were freed."""
        freed = 0
        with durable.storage_errors(_STORE):
            for part in self.arriving.glob(f"*{_PART}"):
                if f"{digests.ALGORITHM}:{part.stem}" not in keep:
                    freed += part.stat().st_blocks * 512
                    part.unlink(missing_ok=True)
        return freed

    def _place(self, digest: str) -> Path:
        return self.folder / digests.parse(digest)


def _missing(digest: str) -> NotFoundError:
    return NotFoundError(
        f"The blob {digest} is not on this device.", hint="It is fetched again by itself."
    )


def _mismatch(digest: str, found: str) -> DigestMismatchError:
    return DigestMismatchError(
        f"What came for the blob {digest} is {found}.",
        hint="The storage or a proxy of where it came from is damaged; nothing was kept.",
    )


def _damaged(digest: str) -> DigestMismatchError:
    return DigestMismatchError(
        f"The blob {digest} was damaged on this device's disk, and was removed.",
        hint="It is fetched again by itself; if that happens often, the disk is going bad.",
    )

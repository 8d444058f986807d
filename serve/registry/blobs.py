"""The blob store: bytes by digest, in an OCI image layout.

    ROOT/oci-layout, ROOT/index.json
    ROOT/blobs/sha256/HEX      read-only files, each named by its content
    ROOT/blobs/.incoming/      files on their way in
    ROOT/.lock                 held shared from storing to recording, exclusively to sweep

Everything that is stored is synced before it gets its name, so that a name always means the bytes.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from typing import TYPE_CHECKING, BinaryIO

from scoring import digest as digests
from scoring import durable
from scoring.errors import DigestMismatchError, NotFoundError
from serve.registry.incoming import Batch
from serve.registry.records import Blob

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from serve.registry.files import SourceFile

LOCK_FILE = ".lock"

_LAYOUT = b'{"imageLayoutVersion":"1.0.0"}\n'
_INDEX = (
    b'{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}\n'
)
_STORE = "the blob store"


class BlobStore:
    """Stores bytes under their digest, the same bytes once.

    Any number of threads and processes may use one folder at once.

    Args:
        root: The folder of the OCI layout; `create` makes it.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folder = root / "blobs" / digests.ALGORITHM
        self.incoming = root / "blobs" / ".incoming"

    def create(self) -> None:
        """Makes the layout where it is missing.

        Raises:
            WorkspaceError: The folder cannot be made or written.
            StorageFullError: No space is left.
        """
        with durable.storage_errors(f"the folder {self.root}"):
            durable.make_folder(self.folder, mode=0o777)
            durable.make_folder(self.incoming, mode=0o777)
            for name, content in (("oci-layout", _LAYOUT), ("index.json", _INDEX)):
                if not (self.root / name).exists():
                    durable.write_bytes(self.root / name, content)

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
        try:
            return self._place(digest).open("rb")
        except FileNotFoundError as error:
            raise _missing(digest) from error
        except OSError as error:
            raise durable.translate(error, f"the blob {digest}") from error

    def read_bytes(self, digest: str) -> bytes:
        """The blob's bytes, checked; for small ones.

        Raises:
            NotFoundError: There is no such blob.
            DigestMismatchError: The file holds other bytes.
        """
        with self.open(digest) as stream:
            data = stream.read()
        _require_equal(digest, digests.of_bytes(data))
        return data

    def verify(self, digest: str) -> Blob:
        """Reads the whole blob and compares; raises like `read_bytes`."""
        with self.open(digest) as stream:
            _require_equal(digest, digests.of_stream(stream))
            return Blob(digest=digest, size=stream.tell())

    def copy_out(self, digest: str, dest: Path, *, mode: int = 0o644) -> Blob:
        """Copies the blob to a file that does not exist yet, checked while it streams.

        Raises:
            NotFoundError: There is no such blob.
            DigestMismatchError: The blob holds other bytes; no file is left at `dest`.
            StorageFullError: No space is left; no file is left at `dest`.
            WorkspaceError: The file cannot be written.
        """
        with (
            self.open(digest) as source,
            durable.storage_errors(f"the file {dest}"),
            durable.TemporaryFile(dest.parent) as file,
        ):
            found = digests.of_chunks(_tee(source, file))
            _require_equal(digest, found)
            os.fchmod(file.fd, mode)
            file.move(dest)
            return Blob(digest=found, size=source.tell())

    def put_bytes(self, data: bytes) -> Blob:
        """Stores bytes; durable when it returns. Raises like `put_stream`."""
        return self.put_stream((data,))

    def put_stream(self, chunks: Iterable[bytes | memoryview]) -> Blob:
        """Stores chunks, one after another, as one blob; durable when it returns.

        Raises:
            StorageFullError: No space is left; the store is as it was.
            WorkspaceError: The store cannot be written; it is as it was.
        """
        with self.batch() as batch:
            return batch.put_stream(chunks)

    def put_file(self, path: Path | SourceFile) -> Blob:
        """Stores a file's bytes; durable when it returns.

        Raises:
            ModelNotFoundError: The file cannot be read.
            ModelFileError: It changed while it was read.
            StorageFullError: No space is left; the store is as it was.
            WorkspaceError: The store cannot be written; it is as it was.
        """
        with self.batch() as batch:
            return batch.put_file(path)

    def batch(self) -> Batch:
        """Stores many blobs and waits for the disk once, at the end of the `with` block."""
        durable.sweep(self.incoming)  # half a large model, where its writer was killed
        return Batch(self.folder, self.incoming)

    def delete(self, digest: str) -> int | None:
        """Removes a blob that nothing references; returns its size, None for none there.

        The caller holds `sweeping`.
        """
        place = self._place(digest)
        with durable.storage_errors(_STORE):
            try:
                size = place.stat().st_size
                place.unlink()
            except FileNotFoundError:
                return None
        return size

    def digests(self) -> list[str]:
        """The digests of all blobs."""
        with durable.storage_errors(_STORE):
            names = sorted(path.name for path in self.folder.iterdir())
        found = (f"{digests.ALGORITHM}:{name}" for name in names)
        return [digest for digest in found if digests.is_digest(digest)]

    def remove_leftovers(self) -> int:
        """Removes what killed writers left; returns how many files that were."""
        return durable.sweep(self.incoming) + durable.sweep(self.root)

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        """Keeps blobs from being swept: held from storing bytes until a record references them."""
        with self._lock() as fd:
            with durable.storage_errors(_STORE):
                fcntl.flock(fd, fcntl.LOCK_SH)
            yield

    @contextlib.contextmanager
    def sweeping(self, patience_s: float = 5.0) -> Iterator[bool]:
        """Keeps everyone else from storing; False where a writer took longer than the patience."""
        deadline = time.monotonic() + patience_s
        with self._lock() as fd:
            while not (locked := _try_exclusive(fd)) and time.monotonic() < deadline:
                time.sleep(0.02)
            yield locked

    @contextlib.contextmanager
    def _lock(self) -> Iterator[int]:
        with durable.storage_errors(_STORE):
            fd = os.open(self.root / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            yield fd
        finally:
            os.close(fd)

    def _place(self, digest: str) -> Path:
        return self.folder / digests.parse(digest)


def _try_exclusive(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _tee(source: BinaryIO, file: durable.TemporaryFile) -> Iterator[bytes]:
    while chunk := source.read(digests.CHUNK_BYTES):
        file.write(chunk)
        yield chunk


def _missing(digest: str) -> NotFoundError:
    return NotFoundError(
        f"The blob {digest} is missing from the store.",
        hint="Restore the workspace's blobs from a backup, or register the same file again.",
    )


def _require_equal(digest: str, found: str) -> None:
    if digest != found:
        raise DigestMismatchError(
            f"The blob {digest} is damaged: its bytes have the digest {found}.",
            hint="Register the same file again, which repairs it, or restore it from a backup.",
        )

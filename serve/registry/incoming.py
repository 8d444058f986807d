"""Bytes on their way into the blob store: hashed while they are written, synced together."""

from __future__ import annotations

import hashlib
import logging
import os
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Self

from scoring import digest as digests
from scoring import durable
from serve.registry.files import SourceFile, read_chunks
from serve.registry.records import Blob

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from pathlib import Path

SYNC_THREADS = 4
MAX_PENDING = 64
"""Files waiting for the disk, each with an open descriptor."""

MIN_OVERLAP_BYTES = 64 * 1024
"""Smaller chunks are hashed sooner than handed to another thread."""

Chunk = bytes | memoryview
Update = Callable[[Chunk], None]

_log = logging.getLogger(__name__)


class Batch:
    """Blobs that are stored together and durable when the block ends.

    Args:
        folder: Where blobs have their names.
        incoming: Where they are written first; on the same file system.
    """

    def __init__(self, folder: Path, incoming: Path) -> None:
        self._folder = folder
        self._incoming = incoming
        self._hashing = ThreadPoolExecutor(1, "fieldpost-hash")
        self._syncing = ThreadPoolExecutor(SYNC_THREADS, "fieldpost-sync")
        self._pending: deque[Future[None]] = deque()

    def put_file(self, path: Path | SourceFile) -> Blob:
        """Like `BlobStore.put_file`, durable at the end of the block."""
        return self.put_stream(read_chunks(path))

    def put_bytes(self, data: bytes) -> Blob:
        """Like `BlobStore.put_bytes`, durable at the end of the block."""
        return self.put_stream((data,))

    def put_stream(self, chunks: Iterable[Chunk]) -> Blob:
        """Like `BlobStore.put_stream`, durable at the end of the block."""
        if len(self._pending) >= MAX_PENDING:
            self._pending.popleft().result()
        with writing():
            file = durable.TemporaryFile(self._incoming)
        try:
            blob = self._pour(chunks, file)
        except BaseException:
            file.close()
            raise
        self._pending.append(self._syncing.submit(self._settle, file, blob))
        return blob

    def _pour(self, chunks: Iterable[Chunk], file: durable.TemporaryFile) -> Blob:
        """Writes a chunk while another thread hashes it."""
        hasher = hashlib.sha256()
        size = 0
        hashed: Future[None] | None = None
        for chunk in chunks:
            hashing = self._hash(hasher.update, chunk, hashed)
            with writing():
                file.write(chunk)
            if hashed is not None:
                hashed.result()
            hashed = hashing
            size += len(chunk)
        if hashed is not None:
            hashed.result()
        return Blob(digest=digests.from_hex(hasher.hexdigest()), size=size)

    def _hash(
        self, update: Update, chunk: Chunk, before: Future[None] | None
    ) -> Future[None] | None:
        if len(chunk) >= MIN_OVERLAP_BYTES:
            return self._hashing.submit(update, chunk)
        if before is not None:
            before.result()
        update(chunk)
        return None

    def _settle(self, file: durable.TemporaryFile, blob: Blob) -> None:
        """Syncs a written file and gives it its name; runs beside the writing of the next."""
        try:
            place = self._folder / digests.parse(blob.digest)
            if _holds(place, file.path, blob):
                return
            with writing():
                os.fchmod(file.fd, 0o444)
                file.sync()
                file.move(place)
        finally:
            file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._hashing.shutdown()
        self._syncing.shutdown(wait=True)
        if kind is None:
            for settled in self._pending:
                settled.result()
            with writing():
                durable.sync_folder(self._folder)


def writing() -> AbstractContextManager[None]:
    """Names the store in the errors of the operating system."""
    return durable.storage_errors("the blob store", "The registry is as it was.")


def _holds(place: Path, written: Path, blob: Blob) -> bool:
    """Whether the store has these very bytes already; a damaged blob is written again."""
    try:
        if _same_bytes(place, written):
            return True
    except FileNotFoundError:
        return False
    except OSError as error:  # an unreadable sector is damage too
        _log.warning("blob %s cannot be read (%s)", blob.digest, error)
    _log.warning("blob %s was damaged and is replaced", blob.digest)
    return False


def _same_bytes(one: Path, other: Path) -> bool:
    with one.open("rb") as first, other.open("rb") as second:
        if os.fstat(first.fileno()).st_size != os.fstat(second.fileno()).st_size:
            return False
        while chunk := first.read(digests.CHUNK_BYTES):
            if chunk != second.read(digests.CHUNK_BYTES):
                return False
    return True

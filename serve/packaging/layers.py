"""Layers: deterministic tar, compressed into independent gzip members.

A gzip file may hold several members and every reader takes them as one stream. Members of a fixed
size make the bytes independent of buffers and threads, bound the memory, and let two threads
compress at once. libdeflate writes them, because the zlib of an interpreter may be zlib or
zlib-ng, which compress to different bytes.
"""

from __future__ import annotations

import hashlib
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

import deflate
import msgspec

from serve.packaging.tarball import FileEntry, tar_stream

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from scoring.packages.storage import Blobs

MEMBER_BYTES = 4 << 20
_THREADS = 2
_IN_FLIGHT = 3

# Of everything that decides a layer's bytes besides its entries: a change makes cached layers old.
FORMAT_VERSION = 1

BALANCED = 6
FAST = 1  # for models: floats hardly compress, and a model may have gigabytes


class Layer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A layer in the blob store.

    Attributes:
        digest: Of the compressed bytes: the blob's name.
        size: Of the compressed bytes.
        diff_id: The digest of the uncompressed archive.
        unpacked_size: Of the uncompressed archive.
    """

    digest: str
    size: int
    diff_id: str
    unpacked_size: int


def write_layer(entries: Iterable[FileEntry], blobs: Blobs, *, level: int = BALANCED) -> Layer:
    """Streams the entries into the store; memory does not grow with them.

    Raises:
        PackagingError: Names clash or a file changed while it was read.
    """
    return write_archive(tar_stream(entries), blobs, level=level)


def write_archive(pieces: Iterable[bytes], blobs: Blobs, *, level: int = BALANCED) -> Layer:
    """Compresses an archive that comes in pieces into the store, as a layer."""
    tally = _Tally()
    members = gzip_members(tally.count(pieces), level)
    blob = blobs.put_stream(members)
    return Layer(
        digest=blob.digest,
        size=blob.size,
        diff_id=f"sha256:{tally.sha256.hexdigest()}",
        unpacked_size=tally.size,
    )


class _Tally:
    """Digest and size of a stream while it passes."""

    def __init__(self) -> None:
        self.sha256 = hashlib.sha256()
        self.size = 0

    def count(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        for piece in pieces:
            self.sha256.update(piece)
            self.size += len(piece)
            yield piece


def gzip_members(pieces: Iterable[bytes], level: int) -> Iterator[bytes]:
    """Compresses a stream into gzip members of `MEMBER_BYTES` of content each."""
    running: deque[Future[bytes]] = deque()
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="fieldpost-gzip") as pool:
        for block in _blocks(pieces):
            running.append(pool.submit(deflate.gzip_compress, block, level))
            if len(running) >= _IN_FLIGHT:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()


def _blocks(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The same stream in blocks of exactly `MEMBER_BYTES`, the last one shorter."""
    block = bytearray()
    for piece in pieces:
        rest = memoryview(piece)
        while rest:
            taken = rest[: MEMBER_BYTES - len(block)]
            block += taken
            rest = rest[len(taken) :]
            if len(block) == MEMBER_BYTES:
                yield bytes(block)
                block = bytearray()
    if block:
        yield bytes(block)

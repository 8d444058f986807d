"""Layers that are kept uncompressed, since they came as a delta."""

from __future__ import annotations

import gzip
import io
import struct
import zlib
from typing import BinaryIO, Final, cast

from edge.agent.blobs import DeviceBlobs

_HEADER: Final = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"
_MOST_STORED: Final = 0xFFFF


def open_raw(blobs: DeviceBlobs, digest: str, diff_id: str) -> BinaryIO:
    """The uncompressed content of a layer that is here in one form or the other.

    Args:
        blobs: Where it is.
        digest: Of its compressed form.
        diff_id: Of its content.

    Raises:
        NotFoundError: It is here in neither form.
    """
    if blobs.has(diff_id):
        return blobs.open(diff_id)
    return cast("BinaryIO", gzip.open(blobs.path(digest)))


def as_gzip(blobs: DeviceBlobs, diff_id: str) -> BinaryIO | None:
    """A layer that is kept uncompressed, for readers that want gzip; None where it is not."""
    if not blobs.has(diff_id):
        return None
    return cast("BinaryIO", io.BufferedReader(Stored(blobs.open(diff_id)), 1 << 17))


class Stored(io.RawIOBase):
    """A stream as gzip, without any compression: for readers that want gzip.

    Args:
        source: What is to be read; closed with this.
    """

    def __init__(self, source: BinaryIO) -> None:
        super().__init__()
        self._source = source
        self._pending = _HEADER
        self._crc = 0
        self._size = 0
        self._over = False

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        """What `io` has it."""
        if not self._pending and not self._over:
            self._pending = self._next()
        count = min(len(buffer), len(self._pending))
        buffer[:count] = self._pending[:count]
        self._pending = self._pending[count:]
        return count

    def close(self) -> None:
        """Closes the source, too."""
        self._source.close()
        super().close()

    def _next(self) -> bytes:
        data = self._source.read(_MOST_STORED)
        self._over = not data
        self._crc = zlib.crc32(data, self._crc)
        self._size += len(data)
        block = struct.pack("<BHH", not data, len(data), len(data) ^ 0xFFFF) + data
        if data:
            return block
        return block + struct.pack("<II", self._crc, self._size & 0xFFFFFFFF)

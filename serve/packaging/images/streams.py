"""Streams that are compared with their digest while they are read."""

from __future__ import annotations

import hashlib
import io
from typing import TYPE_CHECKING, BinaryIO

from scoring import digest as digests
from scoring.errors import DigestMismatchError, PackagingError

if TYPE_CHECKING:
    from typing import Any

BUFFER_BYTES = 1 << 20
DOCUMENT_BYTES = 4 << 20


class _CheckedSource(io.RawIOBase):
    def __init__(self, source: BinaryIO, digest: str, size: int, what: str) -> None:
        self._source = source
        self._digest = digest
        self._left = size
        self._what = what
        self._sha256 = hashlib.sha256()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._source.read(min(len(buffer), self._left)) if self._left else b""
        if not data:
            self._require_right()
            return 0
        self._sha256.update(data)
        self._left -= len(data)
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._source.close()
        super().close()

    def _require_right(self) -> None:
        actual = f"{digests.ALGORITHM}:{self._sha256.hexdigest()}"
        if self._left or self._source.read(1) or actual != self._digest:
            raise DigestMismatchError(
                f"{self._what} is damaged: its bytes are not those of {self._digest}.",
                hint="Fetch or make it again.",
            )


def checked(source: BinaryIO, digest: str, size: int, what: str) -> BinaryIO:
    """The same stream, which fails at its end where size or digest are other ones.

    Args:
        source: Closed with the stream.
        digest: Of all of its bytes.
        size: Of all of its bytes.
        what: For the message: "The layer … of base.tar".
    """
    digests.parse(digest)
    return io.BufferedReader(_CheckedSource(source, digest, size, what), BUFFER_BYTES)


def read_document(source: BinaryIO, what: str) -> bytes:
    """All of a small stream.

    Raises:
        PackagingError: It is too large for a manifest or configuration.
    """
    with source:
        content = source.read(DOCUMENT_BYTES + 1)
        if len(content) > DOCUMENT_BYTES:
            raise PackagingError(f"{what} is too large for a manifest or configuration.")
        source.read(1)  # the end, where a checked stream compares
        return content

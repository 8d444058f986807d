"""The bytes of a blob on their way out: in order, from any offset, checked before the last goes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, BinaryIO, Self

from scoring import digest as digests
from scoring.errors import DigestMismatchError

if TYPE_CHECKING:
    from types import TracebackType

    from serve.distribution.content import Content, Descriptor

PIECE_BYTES = 1 << 18


class Source:
    """One blob to read, again from earlier where an upload has to go back.

    Args:
        content: Opens it.
        descriptor: What it should be.
    """

    def __init__(self, content: Content, descriptor: Descriptor) -> None:
        self._content = content
        self._descriptor = descriptor
        self._stream: BinaryIO | None = None
        self._position = 0
        self._sha256 = hashlib.sha256()
        self._mark = (0, self._sha256.copy())

    def pieces(self, start: int, end: int) -> Iterator[bytes]:
        """The bytes from one offset to another.

        Raises:
            DigestMismatchError: They are not what the descriptor says. That is found before the
                last piece is given, so that nothing wrong is ever complete.
        """
        self._go_to(start)
        self._mark = (start, self._sha256.copy())
        while self._position < end:
            piece = self._read(min(PIECE_BYTES, end - self._position))
            if self._position == self._descriptor.size:
                self._check_end()
            yield piece

    def close(self) -> None:
        """Closes what was opened."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def _go_to(self, offset: int) -> None:
        if self._stream is None or offset < self._position:
            self._rewind(offset)
        while self._position < offset:
            self._read(min(PIECE_BYTES, offset - self._position))

    def _rewind(self, offset: int) -> None:
        """To the last mark where that is early enough, else to the beginning."""
        position, sha256 = self._mark
        if self._stream is not None and position <= offset and self._stream.seekable():
            self._stream.seek(position)
        else:
            self.close()
            self._stream = self._content.open(self._descriptor)
            position, sha256 = 0, hashlib.sha256()
        self._position, self._sha256 = position, sha256.copy()

    def _read(self, count: int) -> bytes:
        assert self._stream is not None
        piece = self._stream.read(count)
        if not piece:
            raise self._wrong(f"ends after {self._position} bytes")
        self._position += len(piece)
        self._sha256.update(piece)
        return piece

    def _check_end(self) -> None:
        assert self._stream is not None
        if self._stream.read(1):
            raise self._wrong("goes on behind its end")
        found = digests.from_hex(self._sha256.hexdigest())
        if found != self._descriptor.digest:
            raise self._wrong(f"has the digest {found}")

    def _wrong(self, how: str) -> DigestMismatchError:
        return DigestMismatchError(
            f"The blob {self._descriptor.digest} of {self._descriptor.size} bytes is damaged: what "
            f"is stored {how}.",
            hint="Build the package again, or pull it from where it came from. Nothing of this "
            "blob was kept in the registry.",
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self.close()

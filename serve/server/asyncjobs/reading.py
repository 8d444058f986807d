"""The result of a job, from the disk to the client."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from scoring import durable
from scoring.http import PulledBody, Response
from serve.server.asyncjobs.files import read_head
from serve.server.asyncjobs.records import Result

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from scoring.http import Got
    from serve.server.jobs import Jobs

_WHOLE_BYTES = 1 << 20
_PIECE_BYTES = 256 * 1024


def read_result(path: Path, in_pieces: Callable[[int, int], PulledBody]) -> Response:
    """The answer as it was given; on the store's thread.

    Args:
        path: The file.
        in_pieces: Makes the body of a large one, from an open file and where the body begins.

    Raises:
        WorkspaceError: The file cannot be read.
    """
    with durable.storage_errors("the result of a job"):
        head, begin = read_head(path, Result)
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        length = os.fstat(fd).st_size - begin
        if length > _WHOLE_BYTES:
            return Response(head.status, in_pieces(fd, begin), head.headers)
        try:
            return Response(head.status, os.pread(fd, length, begin), head.headers)
        finally:
            os.close(fd)


class FileBody(PulledBody):
    """A part of a file, read piece by piece on the store's thread.

    Args:
        fd: The open file; closed at the end.
        begin: Of the part.
        io: The store's thread.
    """

    def __init__(self, fd: int, begin: int, io: Jobs) -> None:
        self._fd = fd
        self._at = begin
        self._io = io

    def pull(self, got: Got) -> None:
        """Asks for the next piece; on the event loop's thread."""

        def done(data: bytes | None, error: BaseException | None) -> None:
            got(data, error)

        self._io.submit(self._read, done, unbounded=True)

    def close(self) -> None:
        """Closes the file when what is asked for has been read; on the event loop's thread."""
        self._io.submit(self._close, lambda *_: None, unbounded=True)

    def _read(self) -> bytes | None:
        data = os.pread(self._fd, _PIECE_BYTES, self._at) if self._fd >= 0 else b""
        self._at += len(data)
        return data or None

    def _close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

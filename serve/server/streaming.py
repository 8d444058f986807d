"""An iterator as the body of an answer, no faster than the client takes it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from serve.server.wire import LAST_CHUNK, chunk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from serve.server.jobs import Jobs

logger = logging.getLogger(__name__)

_END = object()


class Stream:
    """Pulls chunks where user code runs, and writes them on the event loop.

    Args:
        body: Closed in every case: at its end, when it raises, when the client goes.
        jobs: Where its code runs.
        write: Takes bytes for the client.
        finish: Called once at the end; False: the body is incomplete.
        chunked: False for clients of HTTP/1.0: the end of the connection ends the body.
    """

    def __init__(
        self,
        body: Iterator[bytes],
        jobs: Jobs,
        write: Callable[[bytes], None],
        finish: Callable[[bool], None],
        *,
        chunked: bool,
    ) -> None:
        self._body = body
        self._jobs = jobs
        self._write = write
        self._finish = finish
        self._chunked = chunked
        self._waiting = False
        self._pulling = False
        self._closed = False

    def pull(self) -> None:
        """Asks for the next chunk."""
        self._pulling = True
        self._jobs.submit(self._next, self._got, unbounded=True)

    def pause(self) -> None:
        """The client does not take what was written."""
        self._waiting = True

    def resume(self) -> None:
        """The client takes data again."""
        self._waiting = False
        if not self._pulling and not self._closed:
            self.pull()

    def close(self) -> None:
        """Ends it without calling `finish`; the iterator is closed where its code runs."""
        if not self._closed:
            self._closed = True
            if not self._pulling:
                self._close_body()

    def _next(self) -> object:
        return next(self._body, _END)

    def _got(self, data: object, error: BaseException | None) -> None:
        self._pulling = False
        if self._closed:
            self._close_body()
        elif error is not None:
            logger.error("A streamed answer failed", exc_info=error)
            self._end(complete=False)
        elif data is _END:
            if self._chunked:
                self._write(LAST_CHUNK)
            self._end(complete=True)
        else:
            self._send(data)

    def _send(self, data: object) -> None:
        if not isinstance(data, bytes | bytearray | memoryview):
            logger.error("A streamed answer yielded %s, not bytes", type(data).__name__)
            self._end(complete=False)
            return
        if data:  # an empty chunk would end the body
            self._write(chunk(bytes(data)) if self._chunked else bytes(data))
        if not self._waiting and not self._closed:
            self.pull()

    def _end(self, *, complete: bool) -> None:
        self.close()
        self._finish(complete)

    def _close_body(self) -> None:
        close = getattr(self._body, "close", None)
        if close is not None:
            self._jobs.submit(close, _log_failure, unbounded=True)


def _log_failure(_: object, error: BaseException | None) -> None:
    if error is not None:
        logger.error("Closing a streamed answer failed", exc_info=error)

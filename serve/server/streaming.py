"""A body that comes in parts, no faster than the client takes it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from scoring.http import PulledBody
from serve.server.wire import LAST_CHUNK, chunk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from scoring.http import Got
    from serve.server.jobs import Jobs

logger = logging.getLogger(__name__)

_END = object()


class IteratedBody(PulledBody):
    """An iterator, whose code runs where the jobs run.

    Args:
        chunks: Of bytes; closed in every case.
        jobs: Where its code runs.
    """

    def __init__(self, chunks: Iterator[bytes], jobs: Jobs) -> None:
        self._chunks = chunks
        self._jobs = jobs
        self._pulling = False
        self._closed = False

    def pull(self, got: Got) -> None:
        """Asks for the next chunk; on the event loop's thread, as `got` is called."""

        def done(data: object, error: BaseException | None) -> None:
            self._pulling = False
            if self._closed:
                self._close_chunks()
            if error is None and data is not _END and not isinstance(data, bytes):
                error = TypeError(f"it yielded {type(data).__name__}, not bytes")
            got(data if isinstance(data, bytes) else None, error)

        self._pulling = True
        self._jobs.submit(self._next, done, unbounded=True)

    def close(self) -> None:
        """Closes the iterator where its code runs; on the event loop's thread."""
        if not self._closed:
            self._closed = True
            if not self._pulling:
                self._close_chunks()

    def _close_chunks(self) -> None:
        close = getattr(self._chunks, "close", None)
        if close is not None:
            self._jobs.submit(close, _log_failure, unbounded=True)

    def _next(self) -> object:
        data = next(self._chunks, _END)
        return bytes(data) if isinstance(data, bytearray | memoryview) else data


def pulled(body: Iterator[bytes] | PulledBody, jobs: Jobs) -> PulledBody:
    """A body as one that is pulled.

    Args:
        body: Of a response.
        jobs: Where an iterator's code runs.
    """
    return body if isinstance(body, PulledBody) else IteratedBody(body, jobs)


class Stream:
    """Pulls the parts of a body, and writes them on the event loop.

    Args:
        body: Closed in every case: at its end, when it fails, when the client goes.
        jobs: Where an iterator's code runs.
        write: Takes bytes for the client.
        finish: Called once at the end; False: the body is incomplete.
        chunked: False for clients of HTTP/1.0: the end of the connection ends the body.
    """

    def __init__(
        self,
        body: Iterator[bytes] | PulledBody,
        jobs: Jobs,
        write: Callable[[bytes], None],
        finish: Callable[[bool], None],
        *,
        chunked: bool,
    ) -> None:
        self._body = pulled(body, jobs)
        self._jobs = jobs
        self._write = write
        self._finish = finish
        self._chunked = chunked
        self._waiting = False
        self._pulling = False
        self._closed = False

    def pull(self) -> None:
        """Asks for the next part."""
        self._pulling = True
        self._body.pull(self._got_anywhere)

    def pause(self) -> None:
        """The client does not take what was written."""
        self._waiting = True

    def resume(self) -> None:
        """The client takes data again."""
        self._waiting = False
        if not self._pulling and not self._closed:
            self.pull()

    def close(self) -> None:
        """Ends it without calling `finish`."""
        if not self._closed:
            self._closed = True
            self._body.close()

    def _got_anywhere(self, data: bytes | None, error: BaseException | None) -> None:
        self._jobs.post(self._got, data, error)

    def _got(self, data: bytes | None, error: BaseException | None) -> None:
        self._pulling = False
        if self._closed:
            return
        if error is not None:
            logger.error("A streamed answer failed", exc_info=error)
            self._end(complete=False)
        elif data is None:
            if self._chunked:
                self._write(LAST_CHUNK)
            self._end(complete=True)
        else:
            self._send(data)

    def _send(self, data: bytes) -> None:
        if data:  # an empty chunk would end the body
            self._write(chunk(data) if self._chunked else data)
        if not self._waiting and not self._closed:
            self.pull()

    def _end(self, *, complete: bool) -> None:
        self.close()
        self._finish(complete)


def _log_failure(_: object, error: BaseException | None) -> None:
    if error is not None:
        logger.error("Closing a streamed answer failed", exc_info=error)

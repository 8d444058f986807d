"""A connection to a deployment: requests go out as bytes, answers come through a strict parser."""

from __future__ import annotations

import asyncio
import socket
import struct
import sys
from typing import TYPE_CHECKING, Protocol, cast

from httptools import (
    HttpParserCallbackError,
    HttpParserError,
    HttpParserUpgrade,
    HttpResponseParser,
)

if TYPE_CHECKING:
    from serve.endpoints.front.heads import Fields

_NO_BODY = frozenset({204, 304})
_FIRST_FINAL = 200
# `struct tcp_info` of Linux: eight bytes, 24 words, two rates, then what was acknowledged.
_TCP_INFO_SIZE, _ACKED_OFFSET = 128, 120
_MOST_HEAD_BYTES = 1 << 16
_LAST_STATUS = 599


class Sink(Protocol):
    """Who waits for an answer."""

    method: bytes

    def head(self, status: int, reason: bytes, headers: Fields, *, sized: bool) -> None:
        """The answer begins; `sized`: its length is in its head, or it has no body."""
        ...

    def data(self, part: bytes) -> None:
        """A part of its body."""
        ...

    def flush(self) -> None:
        """All of one read has been told."""
        ...

    def done(self) -> None:
        """The answer is whole; the connection is the sink's to keep or to close."""
        ...

    def lost(self, reason: str) -> None:
        """The answer will never be whole: `cut` or `invalid`."""
        ...

    def pause(self) -> None:
        """The deployment takes no more of the request for now."""
        ...

    def resume(self) -> None:
        """It does again."""
        ...


class Upstream(asyncio.Protocol):
    """One connection; one request at a time.

    Attributes:
        reused: It has carried a request before the present one.
        begun: The present answer has begun.
        keeps: The deployment lets the connection be used again.
    """

    def __init__(self) -> None:
        self.reused = self.begun = False
        self.keeps = True
        self._transport: asyncio.Transport
        self._sink: Sink | None = None
        self._parser = HttpResponseParser(self)
        self._written = self._before = self._head_bytes = 0
        self._closed = self._until_close = self._ended = False
        self._reset()

    def _reset(self) -> None:
        self._reason = b""
        self._headers: Fields = []
        self._skipping = False

    @property
    def usable(self) -> bool:
        """Whether it is open, as far as is known here."""
        return not self._closed and self.keeps and not self._transport.is_closing()

    def use(self, sink: Sink) -> None:
        """Begins a request of this sink."""
        self.reused = self._written > 0
        self.begun = self._ended = self._until_close = False
        self._before = self._written
        self._head_bytes = 0
        self._sink = sink

    def write(self, data: bytes) -> None:
        """Sends bytes of the request."""
        self._written += len(data)
        self._transport.write(data)

    def release(self) -> None:
        """The sink wants nothing more."""
        self._sink = None

    def close(self) -> None:
        """Ends the connection; the sink hears nothing more."""
        self._sink = None
        self._closed = True
        self._transport.abort()

    def pause_reading(self) -> None:
        """The sink takes no more for now."""
        if not self._closed:
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """It does again."""
        if not self._closed:
            self._transport.resume_reading()

    def has_reached(self) -> bool:
        """Whether the deployment's side may have got any of the present request.

        The kernel knows what was acknowledged: a request that met a connection which the other
        side had closed already was answered by a reset, and never read.
        """
        if self._written == self._before:
            return False
        if self._transport.get_extra_info("ssl_object") is not None or sys.platform != "linux":
            return True
        sock = self._transport.get_extra_info("socket")
        try:
            info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_SIZE)
            (acked,) = struct.unpack_from("=Q", info, _ACKED_OFFSET)
        except (AttributeError, OSError, struct.error):
            return True
        return bool(acked > self._before + 1)  # the handshake counts as one byte

    # The transport's callbacks

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begins."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Feeds the parser, whose callbacks do the rest."""
        if self._sink is None:
            self.close()  # nobody has asked
            return
        if not self.begun:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserCallbackError, HttpParserUpgrade):
            self._fail("invalid")
            return
        if not self.begun and self._head_bytes > _MOST_HEAD_BYTES:
            self._fail("invalid")
            return
        sink = self._sink
        if sink is not None:
            sink.flush()
            if self._ended:
                sink.done()

    def eof_received(self) -> bool:
        """The deployment sends no more: the end of some answers, the loss of others."""
        self.keeps = False
        if self._until_close and self._sink is not None:
            self._ended = True
            self._sink.done()
        return False

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the same to us
        """Ends; an answer that is not whole is lost."""
        reset_parser = self._parser
        self._closed = True
        if self._sink is not None and not self._ended:
            self._fail("cut")
        del reset_parser
        self._parser = cast("HttpResponseParser", None)

    def pause_writing(self) -> None:
        """The buffer of what goes out is full."""
        if self._sink is not None:
            self._sink.pause()

    def resume_writing(self) -> None:
        """It has room again."""
        if self._sink is not None:
            self._sink.resume()

    # The parser's callbacks

    def on_message_begin(self) -> None:
        """The first byte of an answer; one that nobody has asked for ends the connection."""
        if self._ended or self._sink is None:
            self.keeps = False
        self._reset()

    def on_status(self, part: bytes) -> None:
        """The phrase behind the status, or a part of it."""
        self._reason += part

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header field; those behind a chunked body are dropped."""
        if not self.begun or self._skipping:
            self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """The head is whole."""
        status = self._parser.get_status_code()
        if self._ended or self._sink is None:
            return
        if status < _FIRST_FINAL:
            self._skipping = True
            return
        _require_sense(status, self._headers)
        self.begun = True
        names = [name for name, _ in self._headers]
        chunked = b"transfer-encoding" in names
        bodiless = status in _NO_BODY or self._sink.method == b"HEAD"
        self._until_close = not bodiless and not chunked and b"content-length" not in names
        if self._until_close or not self._parser.should_keep_alive():
            self.keeps = False
        sized = bodiless or not (chunked or self._until_close)
        self._sink.head(status, self._reason, self._headers, sized=sized)
        if self._sink.method == b"HEAD":
            # The parser would wait for a body that never comes.
            self.keeps = False
            self._ended = True

    def on_body(self, part: bytes) -> None:
        """A part of the body."""
        if self._sink is not None and not self._ended:
            self._sink.data(part)

    def on_message_complete(self) -> None:
        """The answer is whole."""
        if self._skipping:
            self._skipping = False
        elif self.begun:
            self._ended = True

    def _fail(self, reason: str) -> None:
        sink, self._sink = self._sink, None
        if sink is not None:
            sink.lost(reason)
        if not self._closed:
            self.close()


def _require_sense(status: int, headers: Fields) -> None:
    """Leaves the parser where the answer is none that could be passed on."""
    codings = [value.strip().lower() for name, value in headers if name == b"transfer-encoding"]
    if status > _LAST_STATUS or codings not in ([], [b"chunked"]):
        raise ValueError(status, codings)

"""One client of a front: HTTP/1.1 from a strict parser, one request under way at a time."""

from __future__ import annotations

import asyncio
from collections import deque
from math import inf
from typing import TYPE_CHECKING, cast

from httptools import (
    HttpParserCallbackError,
    HttpParserError,
    HttpParserUpgrade,
    HttpRequestParser,
)

from scoring.errors import FieldpostError, OverloadedError
from serve.endpoints.front import heads
from serve.endpoints.front.exchange import Exchange, Request
from serve.server import checks, wire
from serve.server.errors import (
    BadRequestError,
    HeadersTooLargeError,
    RequestTimeoutError,
    TargetTooLongError,
)
from serve.server.status import error_response

if TYPE_CHECKING:
    from serve.endpoints.front.front import Front

_HTTP2 = b"PRI"
_HEAD_TIMEOUT_S = 15.0
_LINGER_S = 2.0
_MOST_PIPELINED = 16


class _StopParsing(Exception):  # noqa: N818 - control flow through the parser, not an error
    """Leaves the parser; `error` is the answer, if one is owed."""

    def __init__(self, error: FieldpostError | None = None) -> None:
        super().__init__()
        self.error = error


class Downstream(asyncio.Protocol):
    """A client's connection.

    Args:
        front: What all clients share.

    Attributes:
        deadline: When `expire` is to be called, on the loop's clock.
        address: Of the client.
        tls: Whether it came over TLS.
    """

    def __init__(self, front: Front) -> None:
        self.deadline = inf
        self.address = ""
        self.tls = False
        self._front = front
        self._transport: asyncio.Transport
        self._parser: HttpRequestParser | None = HttpRequestParser(self)
        self._queue: deque[Request] = deque()
        self._reading: Request | None = None
        self._head_bytes = 0
        self._current: Exchange | None = None
        self._out: list[bytes] = []
        self._refusal: FieldpostError | None = None
        self._fresh = True
        self._closing = self._held = self._eof = False
        self._own = False  # the front itself answers now
        self._last = False  # the answer under way is the connection's last one

    # The transport's callbacks

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begins; over the limit of connections it says so and goes."""
        self._transport = cast("asyncio.Transport", transport)
        self.address = wire.address_of(self._transport)
        self.tls = transport.get_extra_info("ssl_object") is not None
        self.deadline = self._front.now() + _HEAD_TIMEOUT_S
        if not self._front.admit(self):
            self._stop(
                OverloadedError(
                    "The endpoint has as many connections as it may.", hint="Try again in a moment."
                )
            )

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the same to us
        """Ends; the parser would keep this object, for it holds its bound methods."""
        self._closing = True
        self._front.leave(self)
        self._parser = None
        current, self._current = self._current, None
        if current is not None:
            current.abandon()
        self._queue.clear()

    def data_received(self, data: bytes) -> None:
        """Feeds the parser, whose callbacks do the rest."""
        if self._closing or self._refusal is not None or self._parser is None:
            return  # read only so that the client can read our answer
        if self._fresh and self._speaks_http2(data):
            return
        rest = None
        try:
            self._parser.feed_data(data)
        except HttpParserUpgrade as stop:
            rest = data[stop.args[0] :]
        except HttpParserError as error:
            self._stop(_refusal_of(error))
        if rest is not None:
            self._ignore_upgrade(rest)
            return
        self._watch_head(len(data))
        self._advance()

    def _watch_head(self, size: int) -> None:
        """A head that never ends would be kept here for ever."""
        if self._reading is None or self._reading.method:
            self._head_bytes = 0
            return
        self._head_bytes += size
        if self._head_bytes > self._front.limits.max_header_bytes:
            self._stop(self._too_many_headers())

    def eof_received(self) -> bool:
        """The client sends no more. As our servers have it: one who is owed an answer has gone."""
        self._eof = True
        if self._closing:
            return False
        if not self._is_free() or self._queue or self._reading is not None:
            self._transport.abort()
        return False

    def pause_writing(self) -> None:
        """The client reads slowly."""
        if self._current is not None:
            self._current.hold_answer(hold=True)

    def resume_writing(self) -> None:
        """It reads again."""
        if self._current is not None:
            self._current.hold_answer(hold=False)

    # The parser's callbacks

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        if self._closing or self._last:
            raise _StopParsing
        if len(self._queue) >= _MOST_PIPELINED:
            raise _StopParsing(OverloadedError("Too many requests are sent at once."))
        self._reading = Request()
        if self._current is None:
            self.deadline = self._front.now() + _HEAD_TIMEOUT_S

    def on_url(self, part: bytes) -> None:
        """The target, or a part of it."""
        request = cast("Request", self._reading)
        request.target += part
        if len(request.target) > self._front.limits.max_target_bytes:
            most = self._front.limits.max_target_bytes
            raise _StopParsing(TargetTooLongError(f"The request target is over {most} bytes."))

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header field; those behind a chunked body are dropped."""
        request = cast("Request", self._reading)
        if not request.method:
            request.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """The head is whole: what can be refused is refused, before any of it is sent."""
        request = cast("Request", self._reading)
        parser = cast("HttpRequestParser", self._parser)
        version = parser.get_http_version()
        request.method = parser.get_method()
        request.old = version == "1.0"
        limits = self._front.limits
        size = len(request.target) + sum(len(k) + len(v) + 4 for k, v in request.headers)
        if len(request.headers) > limits.max_headers or size > limits.max_header_bytes:
            raise _StopParsing(self._too_many_headers())
        if parser.should_upgrade() and request.method != b"CONNECT":
            return  # read again without the offer
        try:
            expects = checks.check_head(request.headers, version, request.method, limits)
            request.target, host = heads.origin_form(request.target)
        except FieldpostError as error:
            raise _StopParsing(error) from None
        if host:
            request.headers = heads.with_host(request.headers, host)
        request.expects = expects and not request.old
        request.length = heads.length_of(request.headers)
        request.keep_alive = parser.should_keep_alive()
        self._queue.append(request)

    def on_body(self, part: bytes) -> None:
        """The body, or a part of it."""
        request = cast("Request", self._reading)
        request.parts.append(part)
        request.waiting += len(part)

    def on_message_complete(self) -> None:
        """The request is whole."""
        request = cast("Request", self._reading)
        if cast("HttpRequestParser", self._parser).should_upgrade():
            return
        request.complete = True
        self._reading = None

    # What happens next

    def _advance(self) -> None:
        """Goes on with the request under way, or takes up the next one."""
        current = self._current
        if current is not None and not current.finished:
            current.pump()
        if self._is_free() and self._queue:
            self._take_up(self._queue.popleft())
        elif self._is_free() and self._refusal is not None:
            self._send_refusal(self._refusal)
        self.steer()

    def _is_free(self) -> bool:
        return self._current is None and not self._own and not self._closing

    def _take_up(self, request: Request) -> None:
        own = self._front.own(request)
        if own is not None:
            self._own = True
            self._front.answer_own(self, request, own)
            return
        self._current = exchange = Exchange(self._front, self, request)
        exchange.start()

    def steer(self) -> None:
        """Sets the deadline, and holds the client back where there is enough of it here."""
        if self._closing:
            return
        self._set_deadline()
        full = bool(self._queue) or (self._current is not None and self._current.is_full)
        if full and not self._held:
            self._held = True
            self._transport.pause_reading()
        elif not full and self._held:
            self._held = False
            self._transport.resume_reading()

    def _set_deadline(self) -> None:
        now, settings = self._front.now(), self._front.settings
        current = self._current
        if current is None:
            self.deadline = now + (
                settings.keep_alive_s if self._reading is None else _HEAD_TIMEOUT_S
            )
        elif current.answering or not current.request.complete:
            self.deadline = now + settings.idle_timeout_s
        else:
            self.deadline = now + settings.response_timeout_s

    def expire(self) -> None:
        """What was waited for did not come."""
        current = self._current
        if self._own:
            return
        if self._closing or (current is None and self._reading is None):
            self._close()
        elif current is None or not (current.request.complete or current.answering):
            self._stop(
                RequestTimeoutError(
                    "The request did not arrive in time.",
                    hint="Send the request again, without a pause in it.",
                )
            )
            self._advance()
        else:
            self.deadline = inf
            current.expire()

    def drain(self) -> None:
        """The front leaves: an idle connection is closed."""
        if self._is_free() and self._reading is None and not self._queue:
            self._close()

    # What the exchange tells

    def connection_value(self, request: Request, *, lasts: bool) -> bytes:
        """The value of `connection` for an answer.

        Args:
            request: What it answers.
            lasts: Whether the end of the answer can be told without the end of the connection.
        """
        closes = (
            not lasts
            or not request.keep_alive
            or not request.complete
            or self._front.draining
            or self._eof
        )
        self._last = self._last or closes
        if closes:
            return b"close"
        return b"keep-alive" if request.old else b""

    def invite(self) -> None:
        """Asks the client to send the body that it has announced."""
        self._transport.write(wire.CONTINUE)

    def begin_answer(self, head: bytes) -> None:
        """The head of an answer."""
        self._out.append(head)

    def add(self, part: bytes) -> None:
        """A part of its body."""
        self._out.append(part)

    def flush(self) -> None:
        """Sends what has been collected."""
        if self._out and not self._closing:
            data = self._out[0] if len(self._out) == 1 else b"".join(self._out)
            self._out.clear()
            self._transport.write(data)
            self.deadline = self._front.now() + self._front.settings.idle_timeout_s

    def answered(self, exchange: Exchange) -> None:
        """An answer is whole and sent."""
        if exchange is not self._current and self._current is not None:
            return
        self._current = None
        if self._last:
            self._finish()
        else:
            self._advance()

    def own_answered(self) -> None:
        """The front has answered itself."""
        self._own = False
        if self._last and not self._closing:
            self._finish()
        elif not self._closing:
            self._advance()

    def refuse(self, error: FieldpostError, exchange: Exchange) -> None:
        """An error is the answer."""
        self.tell(error, exchange.request)
        self.answered(exchange)

    def tell(self, error: FieldpostError, request: Request) -> None:
        """Writes an error's answer; the caller goes on with `answered`."""
        response = error_response(error)
        body = cast("bytes", response.body)
        extra = [("retry-after", "1")] if error.retryable and _lacks_retry(response.headers) else []
        self.write_answer(response.status, [*response.headers, *extra], body, request)

    def write_answer(
        self, status: int, headers: list[tuple[str, str]], body: bytes, request: Request
    ) -> None:
        """Writes an answer of the front itself."""
        head = wire.head(
            status,
            headers,
            date=wire.http_date(self._front.wall_clock()),
            length=len(body),
            connection=self.connection_value(request, lasts=True),
        )
        self._out += [head] if request.method == b"HEAD" else [head, body]
        self.flush()

    def abort(self) -> None:
        """Ends the connection in the middle of an answer, so that it is seen to be cut off."""
        self._closing = True
        current, self._current = self._current, None
        if current is not None:
            current.abandon()
        self._out.clear()
        self._transport.abort()

    # Ends

    def _stop(self, error: FieldpostError | None) -> None:
        """Nothing more is read; what is owed already comes first."""
        broken, self._reading = self._reading, None
        if error is None or self._closing:
            return
        self._refusal = error
        if broken is not None and broken in self._queue:
            self._queue.remove(broken)
        current = self._current
        if current is not None and current.request is broken:
            # Its body will never be whole: whoever has begun with it sees the connection end.
            self._current = None
            current.abandon()
            if current.answering:
                self.abort()
                return
        if self._is_free() and not self._queue:
            self._send_refusal(error)

    def _send_refusal(self, error: FieldpostError) -> None:
        response = error_response(error)
        self._front.refused(response.status)
        self.tell(error, Request(keep_alive=False, complete=True))
        self._finish()

    def _finish(self) -> None:
        """The last answer is out: what the client still sends is read for a while, and dropped.

        To close at once would reset the connection, and the client might lose our answer.
        """
        self._closing = True
        self._queue.clear()
        self.deadline = self._front.now() + _LINGER_S
        self._transport.resume_reading()
        if self._eof or not self._transport.can_write_eof():
            self._transport.close()
        else:
            self._transport.write_eof()

    def _close(self) -> None:
        self._closing = True
        self._transport.close()

    def _too_many_headers(self) -> HeadersTooLargeError:
        limits = self._front.limits
        return HeadersTooLargeError(
            f"The head of the request is over {limits.max_header_bytes} bytes "
            f"or {limits.max_headers} fields."
        )

    def _speaks_http2(self, data: bytes) -> bool:
        """Whether the first bytes are of HTTP/2: then the whole connection is passed through."""
        self._fresh = False
        if not data.startswith(_HTTP2):
            return False
        from serve.endpoints.front.tunnel import Tunnel  # noqa: PLC0415 - few clients do

        self._parser = None
        self._closing = True
        self._front.leave(self)
        Tunnel(self._front, self._transport, data)
        return True

    def _ignore_upgrade(self, rest: bytes) -> None:
        """Goes on in HTTP/1.1 where a client offers another protocol, as RFC 9110 allows."""
        request = cast("Request", self._reading)
        head = checks.without_upgrade(
            request.method, request.target, request.headers, old=request.old
        )
        self._parser = HttpRequestParser(self)
        self._reading = None
        self._head_bytes = 0
        self.data_received(head + rest)


def _lacks_retry(headers: list[tuple[str, str]]) -> bool:
    return all(name != "retry-after" for name, _ in headers)


def _refusal_of(error: HttpParserError) -> FieldpostError | None:
    context = error.__context__ if isinstance(error, HttpParserCallbackError) else None
    if isinstance(context, _StopParsing):
        return context.error
    if context is not None:
        raise context
    return BadRequestError(f"The request is not valid HTTP/1.1: {error}.")

"""HTTP/1.1 on one connection: parse, hold the limits, answer in order.

A state machine between the parser (httptools, strict) and the transport. The most frequent request,
`POST /score` of a model that answers fast, is answered inside the parser's callback, without a task
or an object for it. Every other one becomes an `Exchange` that waits in `_waiting` for its turn.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from math import inf
from typing import TYPE_CHECKING, cast

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser

from scoring.errors import FieldpostError, MalformedPayloadError, OverloadedError
from scoring.http import Response
from serve.server import checks, wire
from serve.server.errors import (
    BadRequestError,
    HeadersTooLargeError,
    RequestTimeoutError,
    TargetTooLongError,
)
from serve.server.exchange import Exchange
from serve.server.status import JSON, error_response, internal_error_response
from serve.server.streaming import Stream

if TYPE_CHECKING:
    from collections.abc import Iterator

    from serve.server.hub import Fast, Hub

logger = logging.getLogger(__name__)

_IDLE, _HEAD, _BODY = range(3)
_LINGER_S = 2.0


class _StopParsing(Exception):  # noqa: N818 - control flow through the parser, not an error
    """Raised in a callback to leave the parser; `error` is the answer, if one is still owed."""

    def __init__(self, error: FieldpostError | None = None) -> None:
        super().__init__()
        self.error = error


class Connection(asyncio.Protocol):
    """One client. Created by the event loop for each connection that it accepts.

    Attributes:
        hub: What all connections share.
        deadline: In the clock's time: when `expire` is due. Infinite while the model computes.
    """

    __slots__ = (
        "_advancing", "_blocked_since", "_body", "_chunk_bytes", "_closing", "_content_type",
        "_current", "_eof", "_fast", "_head_bytes", "_headers", "_keep_alive", "_limits", "_method",
        "_old", "_owes_continue", "_parser", "_phase", "_plain", "_reading", "_stream", "_target",
        "_transport", "_upgrading", "_waiting", "_writable", "deadline", "hub",
    )  # fmt: skip

    _transport: asyncio.Transport

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self.deadline = hub.clock.now + hub.settings.header_timeout_s
        self._limits = hub.settings
        self._fast = hub.fast
        self._parser: HttpRequestParser | None = HttpRequestParser(self)
        self._phase = _IDLE
        self._chunk_bytes = self._head_bytes = 0
        self._waiting: deque[Exchange | FieldpostError] = deque()
        self._current: Exchange | None = None
        self._stream: Stream | None = None
        self._advancing = self._closing = self._eof = self._owes_continue = False
        self._reading = self._writable = True
        self._blocked_since = inf
        self._reset()

    def _reset(self) -> None:
        self._target = b""
        self._method = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._body: bytes | bytearray = b""
        self._content_type = b""
        self._plain = True
        self._old = self._upgrading = False
        self._keep_alive = True

    # The transport's callbacks

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begins; over the limit of connections it says so and goes."""
        self._transport = cast("asyncio.Transport", transport)
        if not self.hub.admit(self):
            self._refuse(
                OverloadedError(
                    "The server has as many connections as it may.", hint="Try again in a moment."
                )
            )

    def connection_lost(self, _exc: Exception | None) -> None:
        """Ends; nothing that is only for this client goes on."""
        self.hub.leave(self)
        self._closing = True
        self._parser = None  # it holds bound methods of this object
        self._waiting.clear()
        if self._stream is not None:
            self._stream.close()
        if self._current is not None:
            self._current.abandon()
        self._current = self._stream = None

    def data_received(self, data: bytes) -> None:
        """Feeds the parser, whose callbacks do the rest."""
        if self._parser is None:
            return  # refused or closing: read only so that the client can read our answer
        began_in = self._phase
        self._chunk_bytes = len(data)
        try:
            self._parser.feed_data(data)
        except HttpParserUpgrade as stop:
            self._ignore_upgrade(data[stop.args[0] :])
            return
        except HttpParserError as error:
            self._stop(error)
        if self._phase == _IDLE:
            if self._current is None and not self._closing:
                self.deadline = self.hub.clock.now + self._limits.keep_alive_timeout_s
        elif self._parser is not None:
            self._await_more(began_in)
        if self._waiting and self._reading and not self._closing:
            self._reading = False
            self._transport.pause_reading()

    def eof_received(self) -> bool:
        """The client sends nothing more; what it has asked is still answered."""
        if self._closing:
            return False
        self._eof = True
        if self._phase != _IDLE:
            self._phase = _IDLE
            self._refuse(_cut_off(len(self._body)))
        return self._current is not None or bool(self._waiting) or not self._writable

    def pause_writing(self) -> None:
        """The client takes nothing: no more answers for now, and no more reading."""
        self._writable = False
        self._blocked_since = self.hub.clock.now
        if self._stream is not None:
            self._stream.pause()
        if self._reading and not self._closing:
            self._reading = False
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        """The client takes data again."""
        self._writable = True
        self._blocked_since = inf
        if self._stream is not None:
            self._stream.resume()
        else:
            self._advance()

    # The parser's callbacks

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        if self._closing:
            raise _StopParsing
        self._reset()
        self._phase = _HEAD
        self._head_bytes = 0

    def on_url(self, part: bytes) -> None:
        """The target, or a part of it."""
        self._target += part
        if len(self._target) > self._limits.max_target_bytes:
            raise _StopParsing(
                TargetTooLongError(
                    f"The request target is over {self._limits.max_target_bytes} bytes."
                )
            )

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header field; those behind a chunked body are skipped."""
        if self._phase != _HEAD:
            return
        name = name.lower()
        self._headers.append((name, value))
        if name == b"content-type":
            self._content_type = value
        elif name == b"content-encoding":
            self._plain = False
        if len(self._headers) > self._limits.max_headers:
            raise _StopParsing(self._too_many_headers())

    def on_headers_complete(self) -> None:
        """The head is whole: everything that can be refused without the body is refused."""
        parser = cast("HttpRequestParser", self._parser)
        self._phase = _BODY
        self._method = parser.get_method()
        version = parser.get_http_version()
        self._old = version == "1.0"
        self._upgrading = parser.should_upgrade()
        if self._head_bytes + self._chunk_bytes > self._limits.max_header_bytes:
            size = len(self._target) + sum(len(k) + len(v) + 4 for k, v in self._headers)
            if size > self._limits.max_header_bytes:
                raise _StopParsing(self._too_many_headers())
        if self._upgrading and self._method != b"CONNECT":
            return  # read again without the offer
        try:
            expects = checks.check_head(self._headers, version, self._method, self._limits)
        except FieldpostError as error:
            raise _StopParsing(error) from None
        if expects and not self._old:
            self._owes_continue = True
            self._pay_continue()

    def on_body(self, part: bytes) -> None:
        """The body, or a part of it."""
        if not self._body:
            self._body = part
        elif isinstance(self._body, bytearray):
            self._body += part
        else:
            self._body = bytearray(self._body) + part
        self._owes_continue = False
        if len(self._body) > self._limits.max_body_bytes:
            raise _StopParsing(checks.too_large(self._limits.max_body_bytes))

    def on_message_complete(self) -> None:
        """The request is whole: answer it now if that is quick and its turn, else let it wait."""
        if self._upgrading:
            return
        self._phase = _IDLE
        self._owes_continue = False
        self._keep_alive = cast("HttpRequestParser", self._parser).should_keep_alive()
        if self._current is None and not self._waiting and self._writable:
            fast = self._fast.get(self._target)
            if (
                fast is not None
                and self._method == b"POST"
                and self._plain
                and self._content_type in checks.JSON_TYPES
                and self._answer_fast(fast)
            ):
                return
        self._waiting.append(
            Exchange(
                self,
                self._method,
                self._target,
                self._headers,
                self._body,
                keep_alive=self._keep_alive,
                old=self._old,
            )
        )
        self._body = b""
        self._advance()

    # Answers

    def _answer_fast(self, fast: Fast) -> bool:
        """Answers inside the callback; False: the model takes too long for that."""
        try:
            body = fast(self._body)
        except FieldpostError as error:
            response = error_response(error)
        except Exception:
            logger.exception("POST %s failed", self._target.decode("latin-1"))
            response = internal_error_response()
        else:
            if body is None:
                return False
            if self._keep_alive and not self._old and not self.hub.draining:
                self._transport.write(b"%b%d\r\n\r\n%b" % (self.hub.clock.ok_head, len(body), body))
                return True
            response = Response(200, body, [JSON])
        self._write_answer(response, keep_alive=self._keep_alive, old=self._old)
        return True

    def answer(self, exchange: Exchange, response: Response) -> None:
        """Writes the answer to the request whose turn it is (`Exchange.respond` calls this)."""
        if isinstance(response.body, bytes):
            self._write_answer(
                response,
                keep_alive=exchange.keep_alive,
                old=exchange.old,
                body_wanted=exchange.method != "HEAD",
            )
            self._next()
        else:
            self._begin_stream(exchange, response)

    def _write_answer(
        self, response: Response, *, keep_alive: bool, old: bool = False, body_wanted: bool = True
    ) -> None:
        body = cast("bytes", response.body)
        connection = self._connection_header(keep_alive=keep_alive, old=old)
        status = response.status if response.status in wire.STATUSES else 500
        head = wire.head(
            status,
            response.headers,
            date=self.hub.clock.date,
            length=len(body),
            connection=connection,
        )
        self._transport.write(head + body if body_wanted and status not in wire.NO_BODY else head)
        if connection == b"close":
            self._close()

    def _connection_header(self, *, keep_alive: bool, old: bool) -> bytes:
        if not keep_alive or self.hub.draining or (self._eof and not self._waiting):
            return b"close"
        return b"keep-alive" if old else b""

    def _begin_stream(self, exchange: Exchange, response: Response) -> None:
        chunked = not exchange.old
        connection = self._connection_header(
            keep_alive=exchange.keep_alive and chunked, old=exchange.old
        )
        self._transport.write(
            wire.head(
                response.status if response.status in wire.STATUSES else 500,
                response.headers,
                date=self.hub.clock.date,
                chunked=chunked,
                connection=connection,
            )
        )
        if exchange.method == "HEAD" or response.status in wire.NO_BODY:
            self.hub.discard(response)
            self._finish_stream(complete=True, close=connection == b"close")
            return
        self._stream = Stream(
            cast("Iterator[bytes]", response.body),
            self.hub.jobs,
            self._transport.write,
            lambda complete: self._finish_stream(complete=complete, close=connection == b"close"),
            chunked=chunked,
        )
        if not self._writable:
            self._stream.pause()
        else:
            self._stream.pull()

    def _finish_stream(self, *, complete: bool, close: bool) -> None:
        self._stream = None
        if not complete:
            self._transport.abort()  # the missing last chunk tells the client
        elif close:
            self._close()
        self._next()

    def _next(self) -> None:
        self._current = None
        if self._closing:
            return
        self._pay_continue()
        self._advance()
        if self._current is None and not self._waiting:
            self._after_last()

    def _after_last(self) -> None:
        """Everything asked so far is answered."""
        if self._eof:
            self._close()
            return
        if self._phase == _IDLE:
            self.deadline = self.hub.clock.now + self._limits.keep_alive_timeout_s
        if not self._reading and self._writable:
            self._reading = True
            self._transport.resume_reading()

    def _advance(self) -> None:
        """Takes up what waits, one after the other. Answers given at once do not recurse."""
        if self._advancing:
            return
        self._advancing = True
        try:
            while self._waiting and self._current is None and self._writable and not self._closing:
                entry = self._waiting.popleft()
                if isinstance(entry, FieldpostError):
                    self._write_answer(error_response(entry), keep_alive=False)
                else:
                    self._current = entry
                    self.deadline = inf
                    self.hub.handle(entry)
        finally:
            self._advancing = False
        if self._current is None and not self._waiting and not self._closing and self._writable:
            self._after_last()

    def _pay_continue(self) -> None:
        """`100 Continue`, once every earlier answer is out."""
        if self._owes_continue and self._current is None and not self._waiting:
            self._owes_continue = False
            self._transport.write(wire.CONTINUE)

    # Ends

    def expire(self) -> None:
        """The deadline is over: what was waited for did not come."""
        if self._closing or not self._writable:
            self._transport.abort()
        elif self._phase == _IDLE:
            self._close()
        else:
            part = "head" if self._phase == _HEAD else "body"
            self._phase = _IDLE
            self._refuse(
                RequestTimeoutError(
                    f"The {part} of the request did not arrive in time.",
                    hint="Send the request again, without a pause in it.",
                )
            )

    def end_if_idle(self) -> None:
        """Closes a connection on which nothing is asked (for the end of a drain's grace)."""
        if self._phase == _IDLE and self._current is None and not self._waiting:
            self._close()

    def abort(self) -> None:
        """Ends it at once, whatever is going on."""
        self._transport.abort()

    @property
    def blocked_since(self) -> float:
        """In the clock's time: since when the client has taken nothing; infinite if it does."""
        return self._blocked_since

    def _stop(self, error: HttpParserError) -> None:
        """The parser has stopped: by our own hand, or because this is not HTTP as it should be."""
        context = error.__context__
        if isinstance(context, _StopParsing):
            refusal = context.error
        elif context is not None:
            logger.error("A request could not be handled", exc_info=context)
            self._transport.abort()
            return
        else:
            refusal = BadRequestError(f"The request is not valid HTTP/1.1: {error}.")
        if refusal is not None and not self._closing:
            self._refuse(refusal)

    def _refuse(self, error: FieldpostError) -> None:
        """Answers with an error when its turn comes, and closes: what follows is not trusted."""
        self._parser = None
        self._phase = _IDLE
        self._owes_continue = False
        self.deadline = inf
        self._waiting.append(error)
        self._advance()

    def _close(self) -> None:
        """Sends what is written, then ends.

        A client that is still sending would get a reset, and lose our answer with it. So when it may
        be (its request was refused), only our half is closed at first, and what comes is dropped.
        """
        if self._closing:
            return
        refused = self._parser is None
        self._closing = True
        self._parser = None
        self._waiting.clear()
        if refused and not self._eof:
            self.deadline = self.hub.clock.now + _LINGER_S
            self._transport.write_eof()
            if not self._reading:
                self._reading = True
                self._transport.resume_reading()
        else:
            self.deadline = self.hub.clock.now + self._limits.write_timeout_s
            self._transport.close()

    # Parts of requests

    def _await_more(self, began_in: int) -> None:
        """A request has begun and is not whole: count what its head holds, set its deadline."""
        if self._phase == _HEAD and began_in == _HEAD:
            self._head_bytes += self._chunk_bytes
            if self._head_bytes > self._limits.max_header_bytes:
                self._refuse(self._too_many_headers())
                return
        if self._phase != began_in or self._phase == _HEAD and self._head_bytes == 0:
            timeout_s = (
                self._limits.header_timeout_s
                if self._phase == _HEAD
                else self._limits.body_timeout_s
            )
            self.deadline = self.hub.clock.now + timeout_s

    def _too_many_headers(self) -> HeadersTooLargeError:
        return HeadersTooLargeError(
            f"The head of the request is over {self._limits.max_header_bytes} bytes "
            f"or {self._limits.max_headers} fields."
        )

    def _ignore_upgrade(self, rest: bytes) -> None:
        """Goes on in HTTP/1.1 where a client offers another protocol, as RFC 9110 allows.

        The parser leaves such a message behind its head, before a body. So the head is read again
        without the offer, by a new parser, and the body after it.
        """
        head = checks.without_upgrade(self._method, self._target, self._headers, old=self._old)
        self._parser = HttpRequestParser(self)
        self._phase = _IDLE
        self.data_received(head + rest)


def _cut_off(received: int) -> FieldpostError:
    return MalformedPayloadError(
        f"The request was cut off: it ended after {received} bytes of its body.",
        hint="Send the whole body, or the right content-length.",
    )

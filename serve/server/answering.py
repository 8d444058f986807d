"""The answering half of a connection: answers in order, as fast as the client takes them."""

from __future__ import annotations

import asyncio
from collections import deque
from math import inf
from typing import TYPE_CHECKING, cast

from scoring.errors import FieldpostError
from scoring.http import Response
from serve.server import wire
from serve.server.status import JSON, error_response
from serve.server.streaming import Stream

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from serve.server.exchange import Exchange
    from serve.server.hub import Hub
    from serve.server.models.call import Call

IDLE, HEAD, BODY = range(3)
"""What has arrived of the request that is being read: nothing, some of its head, all of it."""

_LINGER_S = 2.0


class Answering(asyncio.Protocol):
    """Requests wait here for their turn; the reading half is `serve.server.protocol.Connection`.

    Attributes:
        hub: What all connections share.
        deadline: In the clock's time: when `expire` is due. Infinite while an answer is computed.
        blocked_since: In the clock's time: since when the client has taken nothing; infinite if it
            does.
    """

    __slots__ = (
        "_advancing", "_client", "_closing", "_current", "_eof", "_limits", "_owes_continue",
        "_phase", "_reading", "_refused", "_stream", "_transport", "_waiting", "_writable",
        "blocked_since", "deadline", "hub",
    )  # fmt: skip

    _transport: asyncio.Transport

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self.deadline = hub.clock.now + hub.settings.header_timeout_s
        self.blocked_since = inf
        self._limits = hub.settings
        self._waiting: deque[Exchange | FieldpostError] = deque()
        self._current: Exchange | Call | None = None
        self._client = b""
        self._stream: Stream | None = None
        self._phase = IDLE
        # What the client sends is not looked at any more.
        self._refused = False
        self._advancing = self._closing = self._eof = self._owes_continue = False
        self._reading = self._writable = True

    # What the hub asks for

    @property
    def busy(self) -> int:
        """How many requests wait here for their answer."""
        return len(self._waiting) + (self._current is not None)

    def end_if_idle(self) -> None:
        """Closes a connection on which nothing is asked (for the end of a drain's grace)."""
        if self._phase == IDLE and self._is_idle():
            self._close_idle()

    def abort(self) -> None:
        """Ends it at once, whatever is going on."""
        self._transport.abort()

    # The transport's callbacks

    def connection_lost(self, _exc: Exception | None) -> None:
        """Ends; nothing that is only for this client goes on."""
        self._closing = True
        self._waiting.clear()
        if self._stream is not None:
            self._stream.close()
        if self._current is not None:
            self._current.abandon()
        self._current = self._stream = None

    def pause_writing(self) -> None:
        """The client takes nothing: no more answers for now, and no more reading."""
        self._writable = False
        self.blocked_since = self.hub.clock.now
        if self._stream is not None:
            self._stream.pause()
        if self._reading and not self._closing:
            self._reading = False
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        """The client takes data again."""
        self._writable = True
        self.blocked_since = inf
        if self._stream is not None:
            self._stream.resume()
        else:
            self._advance()

    # Answers

    def answer(self, exchange: Exchange, response: Response) -> None:
        """Writes the answer to the request whose turn it is (`Exchange.respond` calls this)."""
        if isinstance(response.body, bytes):
            self._write_answer(
                response,
                keep_alive=exchange.keep_alive,
                old=exchange.old,
                body_wanted=exchange.method != "HEAD",
            )
            self._tell(exchange, response.status, len(response.body))
            self._next()
        else:
            self._begin_stream(exchange, response)

    def answer_hot(self, call: Call, body: bytes) -> None:
        """Answers a call of the fast path: 200 with JSON, on a connection that goes on."""
        if self._current is not call:
            return
        hub = self.hub
        if hub.draining or self._eof:
            self.answer_response(call, Response(200, body, [JSON]))
            return
        self._transport.write(b"%b%d\r\n\r\n%b" % (hub.clock.ok_head, len(body), body))
        if call.channel is not None:
            details, call.details = call.details, None  # they may know the call: no cycle is left
            call.channel.answered(200, call.begun, call.size, len(body), details)
        self._current = None
        if self._waiting or self._owes_continue or not self._reading:
            self._next()
        elif self._phase == IDLE:
            self.deadline = hub.clock.now + self._limits.keep_alive_timeout_s
        else:
            self._set_deadline()

    def answer_response(self, call: Call, response: Response, error: str = "") -> None:
        """Answers a call of the fast path with anything else; its body is bytes.

        Args:
            call: Whose turn it is.
            response: The answer.
            error: The code of the error that it tells; empty for none.
        """
        if self._current is call:
            self._write_answer(response, keep_alive=True)
            if call.channel is not None:
                size = len(cast("bytes", response.body))
                details, call.details = call.details, None  # as above: no cycle is left
                if error:
                    call.channel.failed(error)
                    if details is not None:
                        details.error = error
                call.channel.answered(response.status, call.begun, call.size, size, details)
            self._next()

    def answer_stream(self, call: Call, exchange: Exchange, response: Response) -> None:
        """Answers a call of the fast path with a stream, which takes an exchange from here on."""
        if self._current is call:
            self._current = exchange
            exchange.respond(response)
        else:
            self.hub.discard(response)

    def _tell(self, exchange: Exchange, status: int, size: int) -> None:
        """Counts and logs an answer that has been written."""
        if self.hub.telemetry is not None:
            exchange.tell(self.hub.telemetry, self._client, status, size)

    def _write_answer(
        self, response: Response, *, keep_alive: bool, old: bool = False, body_wanted: bool = True
    ) -> None:
        body = cast("bytes", response.body)
        connection = self._connection_header(keep_alive=keep_alive, old=old)
        head = wire.head(
            response.status,
            response.headers,
            date=self.hub.clock.date,
            length=len(body),
            connection=connection,
        )
        wanted = body_wanted and response.status not in wire.NO_BODY
        self._transport.write(head + body if wanted else head)
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
                response.status,
                response.headers,
                date=self.hub.clock.date,
                chunked=chunked,
                connection=connection,
            )
        )

        def told() -> None:
            self._tell(exchange, response.status, 0)

        if exchange.method == "HEAD" or response.status in wire.NO_BODY:
            self.hub.discard(response)
            self._finish_stream(complete=True, close=connection == b"close", told=told)
            return
        self._stream = Stream(
            cast("Iterator[bytes]", response.body),
            self.hub.jobs,
            self._transport.write,
            lambda complete: self._finish_stream(
                complete=complete, close=connection == b"close", told=told
            ),
            chunked=chunked,
        )
        if not self._writable:
            self._stream.pause()
        else:
            self._stream.pull()

    def _finish_stream(self, *, complete: bool, close: bool, told: Callable[[], None]) -> None:
        self._stream = None
        told()
        if not complete:
            self._closing = True
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
        if self._is_idle():
            self._after_last()

    def _after_last(self) -> None:
        """Everything asked so far is answered."""
        if self._eof:
            self._close()
            return
        self._set_deadline()
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
                    self._write_answer(self._refusal(entry), keep_alive=False)
                    if self.hub.telemetry is not None:
                        self.hub.telemetry.rejected(entry.code)
                else:
                    self._current = entry
                    self.deadline = inf
                    self.hub.handle(entry)
        finally:
            self._advancing = False
        if self._is_idle() and self._writable and not self._closing:
            self._after_last()

    def _pay_continue(self) -> None:
        """`100 Continue`, once every earlier answer is out."""
        if self._owes_continue and self._is_idle():
            self._owes_continue = False
            self._transport.write(wire.CONTINUE)

    def _refusal(self, error: FieldpostError) -> Response:
        """The answer to a request that is not read to its end."""
        return error_response(error)

    def _refuse(self, error: FieldpostError) -> None:
        """Answers with an error when its turn comes, and closes: what follows is not trusted."""
        self._refused = True
        self._phase = IDLE
        self._owes_continue = False
        self.deadline = inf
        self._waiting.append(error)
        self._advance()

    def _close(self) -> None:
        """Sends what is written, then ends.

        A client that is still sending would get a reset, and lose our answer with it. So when it
        may be (its request was refused), only our half is closed at first, and what comes is
        dropped.
        """
        if self._closing:
            return
        self._closing = True
        self._waiting.clear()
        if self._refused and not self._eof and self._transport.can_write_eof():
            self.deadline = self.hub.clock.now + _LINGER_S
            self._transport.write_eof()
            if not self._reading:
                self._reading = True
                self._transport.resume_reading()
        else:
            self.deadline = self.hub.clock.now + self._limits.write_timeout_s
            self._transport.close()

    def _close_idle(self) -> None:
        """Ends a connection that owes and awaits nothing.

        Under TLS the end waits for the client's own word, which one that keeps connections for
        later does not give before it uses this one again.
        """
        self._close()
        if not self._transport.get_write_buffer_size():
            self.deadline = self.hub.clock.now + _LINGER_S

    def _set_deadline(self) -> None:
        """What the client has to do next, and until when."""
        limits = self._limits
        timeouts_s = (limits.keep_alive_timeout_s, limits.header_timeout_s, limits.body_timeout_s)
        self.deadline = self.hub.clock.now + timeouts_s[self._phase]

    def _is_idle(self) -> bool:
        return self._current is None and not self._waiting

"""The reading half of a connection: HTTP/1.1 from a strict parser (httptools), under limits.

The most frequent requests, plain JSON to be answered by a model, go from the parser's callback
straight to the model. Every other one becomes an `Exchange` that waits for its turn in the
answering half.
"""

from __future__ import annotations

import logging
from math import inf
from typing import TYPE_CHECKING, cast

from httptools import (
    HttpParserCallbackError,
    HttpParserError,
    HttpParserUpgrade,
    HttpRequestParser,
)

from scoring.errors import FieldpostError, MalformedPayloadError, OverloadedError
from scoring.payload.mediatype import JSON_TYPES
from serve.server import checks
from serve.server.answering import BODY, HEAD, IDLE, Answering
from serve.server.bodies import BodyReader, pays
from serve.server.errors import (
    BadRequestError,
    HeadersTooLargeError,
    RequestTimeoutError,
    TargetTooLongError,
)
from serve.server.exchange import Exchange
from serve.server.heads import Head, Heads
from serve.server.hub import TENSORS
from serve.server.telemetry.channel import Details
from serve.server.wire import address_of, split_target

if TYPE_CHECKING:
    import asyncio

    from scoring.http import Response
    from serve.server.access.principal import Principal
    from serve.server.hub import Fast, Hub

logger = logging.getLogger(__name__)

_HTTP2 = b"PRI"
# Of the messages that begin in one piece of data: none of it is a whole request of its own; it was
# one, and the fast path has taken it.
_IN_THE_MIDDLE = 1000
_ONE_FAST = -1000


class _StopParsing(Exception):  # noqa: N818 - control flow through the parser, not an error
    """Raised in a callback to leave the parser; `error` is the answer, if one is still owed."""

    def __init__(self, error: FieldpostError | None = None) -> None:
        super().__init__()
        self.error = error


class Connection(Answering):
    """One client. Created by the event loop for each connection that it accepts."""

    __slots__ = (
        "_address", "_body", "_body_bytes", "_chunk_bytes", "_content_type", "_credential", "_fast",
        "_fresh", "_guard", "_head_bytes", "_headers", "_heads", "_hosts", "_json_size",
        "_keep_alive", "_messages", "_method", "_old", "_parser", "_parts", "_plain", "_principal",
        "_taken", "_target", "_telemetry", "_texts", "_timed", "_traces", "_upgrading", "_watched",
    )  # fmt: skip

    def __init__(self, hub: Hub) -> None:
        super().__init__(hub)
        self._parts: list[bytes] = []
        self._fast = hub.fast
        self._guard = hub.guard
        self._telemetry = hub.telemetry
        self._traces = hub.telemetry is not None and hub.telemetry.traces
        self._address = ""
        self._fresh = True
        self._heads = Heads()
        self._messages = 0
        self._taken: bytes | bytearray = b""
        # The headers that were last wanted as text, before and after: often they come again.
        self._texts: tuple[list[tuple[bytes, bytes]], list[tuple[str, str]]] = ([], [])
        self._parser: HttpRequestParser | None = HttpRequestParser(self)
        self._chunk_bytes = self._head_bytes = 0
        # The phase that the deadline is for.
        self._timed = IDLE
        self._reset()

    def _reset(self) -> None:
        self._target = b""
        self._method = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._body: bytes | bytearray = b""
        self._parts.clear()
        self._body_bytes = 0
        self._content_type = self._credential = self._json_size = b""
        self._principal: Principal | None = None
        self._hosts = 0
        self._plain = True
        self._old = self._upgrading = self._watched = False
        self._keep_alive = True

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """Of the request that is read: as they came, names in lower case."""
        return self._headers

    @property
    def text_headers(self) -> list[tuple[str, str]]:
        """The same as text, for whoever asks; nobody may change it."""
        before, texts = self._texts
        if before is not self._headers:
            texts = [
                (name.decode("latin-1"), value.decode("latin-1")) for name, value in self._headers
            ]
            self._texts = (self._headers, texts)
        return texts

    @property
    def json_size(self) -> bytes:
        """Its `inference-header-content-length`, for the fast path; empty where there is none."""
        return self._json_size

    @property
    def principal(self) -> Principal | None:
        """Who sent it, for the fast path; None where the server asks nobody."""
        return self._principal

    # The transport's callbacks

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begins; over the limit of connections it says so and goes."""
        self._transport = cast("asyncio.Transport", transport)
        self._address = address_of(self._transport)
        if self._telemetry is not None and self._telemetry.details:
            from serve.server.telemetry.accesslog import quoted  # noqa: PLC0415 - few keep one

            self._client = quoted(self._address.encode())
        if not self.hub.admit(self):
            self._refuse(
                OverloadedError(
                    "The server has as many connections as it may.", hint="Try again in a moment."
                )
            )

    def connection_lost(self, exc: Exception | None) -> None:
        """Ends; the parser would keep this object, for it holds its bound methods."""
        self.hub.leave(self)
        self._parser = None
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Feeds the parser, whose callbacks do the rest; heads that it has seen need no parsing."""
        head = self._heads.find(len(data))
        if head is not None and data.startswith(head.text) and self._answer_again(head, data):
            return
        if self._refused or self._closing or self._parser is None:
            return  # read only so that the client can read our answer
        if self._fresh and self._speaks_http2(data):
            return
        self._chunk_bytes = len(data)
        self._messages = 0 if self._phase == IDLE else _IN_THE_MIDDLE
        rest = None
        try:
            self._parser.feed_data(data)
        except HttpParserUpgrade as stop:
            rest = data[stop.args[0] :]
        except HttpParserError as error:
            self._stop(error)
        if rest is not None:
            self._ignore_upgrade(rest)
            return
        self._after(data)

    def _after(self, data: bytes) -> None:
        """What is to be done when the parser has seen a piece."""
        if self._messages == _ONE_FAST:
            self._heads.keep(data, self._taken, self._target, self._headers, self._credential)
            self._taken = b""
        elif self._phase != IDLE:
            self._await_more()
        elif self._current is None and not self._closing:
            self.deadline = self.hub.clock.now + self._limits.keep_alive_timeout_s
        if self._waiting and self._reading and not self._closing:
            self._reading = False
            self._transport.pause_reading()

    def eof_received(self) -> bool:
        """The client sends nothing more; what can be answered at once is still answered.

        Hardly any client closes one half alone and then waits: one whose answer is being computed
        has gone, so that what has not begun need not be, and the rest is cancelled.
        """
        if self._closing:
            return False
        self._eof = True
        if self._current is not None and self._writable:
            self._transport.abort()
            return False
        if self._phase != IDLE:
            self._phase = IDLE
            self._refuse(_cut_off(self._body_bytes))
        return not self._is_idle() or not self._writable

    # The parser's callbacks

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        if self._closing:
            raise _StopParsing
        self._messages += 1
        self._reset()
        self._phase = HEAD
        self._timed = IDLE
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
        if self._phase != HEAD:
            return
        name = name.lower()
        value = value.rstrip(b" \t")  # which are none of it (RFC 9110, 5.5); the parser leaves them
        self._headers.append((name, value))
        if name in checks.WATCHED:
            if name == b"content-type":
                self._content_type = value
            elif name == b"host":
                self._hosts += 1
            elif name in (b"authorization", b"x-api-key"):
                self._credential = value if name == b"authorization" else b"key " + value
            elif name == b"accept-encoding":
                # One coding alone is a wish; several are what most clients send of themselves.
                self._plain = self._plain and value not in checks.ONE_CODING
            elif name == b"inference-header-content-length":
                self._plain = self._plain and not self._json_size
                self._json_size = value
            elif name in checks.LONG_WAY:
                self._plain = False
                self._watched = self._watched or name == b"content-encoding"
            # A length with fewer digits than the limit is below it.
            elif name != b"content-length" or len(value) >= self.hub.body_digits:
                self._watched = True

    def on_headers_complete(self) -> None:
        """The head is whole: everything that can be refused without the body is refused."""
        parser = cast("HttpRequestParser", self._parser)
        self._phase = BODY
        self._method = parser.get_method()
        version = parser.get_http_version()
        upgrading = parser.should_upgrade()
        if upgrading or self._watched or self._hosts != 1 or version != "1.1":
            self._check_head(version, upgrading=upgrading)
        elif len(self._headers) > self._limits.max_headers:
            raise _StopParsing(self._too_many_headers())
        # A head in one small piece needs no sum.
        if self._timed == HEAD or self._chunk_bytes > self._limits.max_header_bytes:
            self._check_head_size()

    def _check_head(self, version: str, *, upgrading: bool) -> None:
        """The checks that an ordinary request from an ordinary client does not need."""
        self._old = version == "1.0"
        self._upgrading = upgrading
        if upgrading and self._method != b"CONNECT":
            return  # read again without the offer
        try:
            expects = checks.check_head(self._headers, version, self._method, self._limits)
        except FieldpostError as error:
            raise _StopParsing(error) from None
        if expects and not self._old:
            self._owes_continue = True
            self._pay_continue()

    def _check_head_size(self) -> None:
        size = len(self._target) + sum(len(k) + len(v) + 4 for k, v in self._headers)
        if size > self._limits.max_header_bytes:
            raise _StopParsing(self._too_many_headers())

    def on_body(self, part: bytes) -> None:
        """The body, or a part of it."""
        self._owes_continue = False
        if not self._body:
            self._body = part
            self._body_bytes = len(part)
        else:
            # Joined once at the end: growing one buffer would copy it again and again.
            self._parts.append(part)
            self._body_bytes += len(part)
        if self._body_bytes > self._limits.max_body_bytes:
            raise _StopParsing(checks.too_large(self._limits.max_body_bytes))

    def on_message_complete(self) -> None:
        """The request is whole: answer it now if that is quick and its turn, else let it wait."""
        if self._upgrading:
            return
        self._phase = IDLE
        self._owes_continue = False
        if self._parts:
            self._body = b"".join([self._body, *self._parts])
            self._parts.clear()
        self._keep_alive = cast("HttpRequestParser", self._parser).should_keep_alive()
        self._take_up()

    def _take_up(self) -> None:
        """Gives a whole request to its model, or lets it wait for its turn."""
        if not self._answer_fast():
            self._waiting.append(
                Exchange(
                    self,
                    self._method,
                    self._target,
                    self._headers,
                    self._body,
                    keep_alive=self._keep_alive,
                    old=self._old,
                    credential=self._credential,
                    principal=self._principal,
                    address=self._address,
                )
            )
            self._body = b""
            self._advance()

    # Large bodies

    def _read_body(self) -> None:
        """Lets the rest of a large body come without the parser, if it says how long it is."""
        length = checks.body_length(self._headers)
        if self._closing or self._refused or not pays(self._body_bytes, length):
            return
        self._keep_alive = cast("HttpRequestParser", self._parser).should_keep_alive()
        begun = b"".join([self._body, *self._parts])
        self._body = b""
        self._parts.clear()
        # Paused in between, for the transport reads on in the way in which it has begun to.
        self._transport.pause_reading()
        self._transport.set_protocol(BodyReader(self, begun, length, self._body_is_whole))
        self._transport.resume_reading()

    def body_arrives(self, arrived: int) -> None:
        """See `serve.server.bodies.Owner`."""
        self._body_bytes = arrived
        self._owes_continue = False

    def _body_is_whole(self, body: bytearray) -> None:
        self._transport.pause_reading()
        self._transport.set_protocol(self)
        self._parser = HttpRequestParser(self)  # the old one still waits for this body
        self._phase = IDLE
        if self._refused or self._closing:
            self._transport.resume_reading()
            return
        self._body = body
        self._take_up()
        if not self._waiting and self._reading:
            self._transport.resume_reading()
        elif self._reading:
            self._reading = False

    # Answers

    def _answer_fast(self) -> bool:
        """Hands a plain inference request straight to its model, if it is its turn."""
        if self._json_size:
            fast = self._fast.get(TENSORS + self._target)
        elif self._content_type in JSON_TYPES:
            fast = self._fast.get(self._target)
        else:
            return False
        if (
            fast is None
            or not self._plain
            or self._method != b"POST"
            or not self._keep_alive
            or self._old
            or self._current is not None
            or self._waiting
            or not self._writable
        ):
            return False
        return self._submit(fast)

    def _answer_again(self, head: Head, data: bytes) -> bool:
        """Answers a request whose head was seen before; False: let the parser see it."""
        fast = self._fast.get(head.target)
        if (
            fast is None
            or self._phase != IDLE
            or self._current is not None
            or self._waiting
            or not self._writable
            or self._closing
            or self._refused
        ):
            return False
        self._method = b"POST"
        self._target = head.target
        self._headers = head.headers
        self._credential = head.credential
        self._body = data[head.size :]
        self._principal = None
        self._messages = _IN_THE_MIDDLE
        return self._submit(fast)

    def _submit(self, fast: Fast) -> bool:
        try:
            if self._guard is not None:
                self._principal = self._guard.admit(self._credential, self._target, self._address)
                if self._principal is None:
                    return False
            call = fast(self, self._body)
        except FieldpostError:
            return False  # the long way tells it
        if call is None:
            return False
        if self._messages == 1 and not self._watched and not self._json_size:
            self._messages = _ONE_FAST
            self._taken = self._body
        if self._client:
            call.details = Details(
                self._client,
                self._method,
                self._target,
                self._headers,
                self._principal.id if self._principal is not None else "",
                phases=call.phases if self._traces else None,
            )
        self._current = call
        self._body = b""
        self.deadline = inf
        return True

    # Ends

    def expire(self) -> None:
        """The deadline is over: what was waited for did not come."""
        if self._closing or not self._writable:
            self._transport.abort()
        elif self._phase == IDLE:
            self._close_idle()
        else:
            part = "head" if self._phase == HEAD else "body"
            self._phase = IDLE
            self._refuse(
                RequestTimeoutError(
                    f"The {part} of the request did not arrive in time.",
                    hint="Send the request again, without a pause in it.",
                )
            )

    def _stop(self, error: HttpParserError) -> None:
        """The parser has stopped: by our own hand, or because this is not HTTP as it should be."""
        context = error.__context__ if isinstance(error, HttpParserCallbackError) else None
        if isinstance(context, _StopParsing):
            refusal = context.error
        elif context is not None:
            logger.error("A request could not be handled", exc_info=context)
            self._closing = True
            self._transport.abort()
            return
        else:
            refusal = BadRequestError(f"The request is not valid HTTP/1.1: {error}.")
        if refusal is not None and not self._closing:
            self._refuse(refusal)

    def _speaks_http2(self, data: bytes) -> bool:
        """Whether the first bytes are of HTTP/2: another protocol then takes this connection."""
        self._fresh = False
        if not data.startswith(_HTTP2):
            return False
        from serve.server.grpc.connection import GrpcConnection  # noqa: PLC0415 - few clients do

        self.hub.leave(self)
        self._parser = None
        self._closing = True
        GrpcConnection(self.hub, self._transport, data)
        return True

    def _refusal(self, error: FieldpostError) -> Response:
        """In the form of the route that was asked, as far as it has been read."""
        path, _ = split_target(self._target)
        return self.hub.shape(path)(error, path)

    # Parts of requests

    def _await_more(self) -> None:
        """A request has begun and is not whole: count what its head holds, set its deadline."""
        if self._phase == BODY and self._is_idle():
            self._read_body()
        if self._phase == HEAD and self._timed == HEAD:
            self._head_bytes += self._chunk_bytes
            if self._head_bytes > self._limits.max_header_bytes:
                self._refuse(self._too_many_headers())
                return
        if self._timed != self._phase:
            self._timed = self._phase
            self._set_deadline()

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
        self._phase = IDLE
        self.data_received(head + rest)


def _cut_off(received: int) -> FieldpostError:
    return MalformedPayloadError(
        f"The request was cut off: it ended after {received} bytes of its body.",
        hint="Send the whole body, or the right content-length.",
    )

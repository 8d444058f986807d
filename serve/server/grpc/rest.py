"""A plain request over HTTP/2, handed to the routes of HTTP/1.1.

Browsers and curl choose HTTP/2 where TLS offers it, and gRPC needs it offered.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, cast

from serve.server.checks import too_large
from serve.server.errors import RequestTimeoutError, TargetTooLongError
from serve.server.exchange import Exchange
from serve.server.grpc import frames as f
from serve.server.grpc.heads import encode, is_field
from serve.server.grpc.streams import Stream
from serve.server.streaming import Stream as BodyStream
from serve.server.wire import NO_BODY, SERVER, split_target

logger = logging.getLogger(__name__)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from scoring.errors import FieldpostError
    from scoring.http import Response
    from serve.server.grpc.connection import GrpcConnection
    from serve.server.grpc.heads import Head
    from serve.server.hub import Hub
    from serve.server.protocol import Connection

_OURS = frozenset(
    {
        *("connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"),
        *("content-length", "date", "server"),
    }
)


class RestStream(Stream):
    """One exchange. It stands where an exchange knows its connection."""

    __slots__ = ("_body", "_exchange", "_gone", "_paused", "_source", "_status", "_written", "hub")

    def __init__(self, connection: GrpcConnection, stream_id: int, head: Head, window: int) -> None:
        super().__init__(connection, stream_id, head, window)
        self.hub: Hub = connection.hub
        self._body: list[bytes] = []
        self._exchange: Exchange | None = None
        self._source: BodyStream | None = None
        self._gone = self._paused = False
        # Of a streamed answer: its status, and how much of it there was.
        self._status = self._written = 0

    # What the connection brings

    def begin(self) -> None:
        """Refuses a target that is too long, and a body that says so."""
        longest = self.hub.settings.max_target_bytes
        if len(self.head.path) > longest:
            self._refuse(TargetTooLongError(f"The request target is over {longest} bytes."))
        elif self.head.length > self.connection.most:
            self._refuse(too_large(self.connection.most))

    def receive(self, data: bytes) -> None:
        """A part of the body."""
        if self._gone:
            return
        if self.received > self.connection.most:
            self._refuse(too_large(self.connection.most))
            return
        if data:
            self._body.append(data)
        if self.ended:
            self._handle()

    def lost(self) -> None:
        """The client has gone: what has not begun is not computed."""
        self._gone = True
        self._body.clear()
        source, self._source = self._source, None
        if source is not None:
            source.close()
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.abandon()

    def held(self) -> int:
        """Bytes of the body so far."""
        return 0 if self.ended else self.received

    def wait(self, oldest: float) -> None:
        """The body has to come within its time in all."""
        if self.opened < oldest:
            self._refuse(
                RequestTimeoutError(
                    "The body of the request did not arrive in time.",
                    hint="Send the request again, without a pause in it.",
                )
            )

    def drained(self) -> None:
        """The client has taken what there was: the next part of a streamed answer, please."""
        if self._source is not None and self._paused:
            self._paused = False
            self._source.resume()

    def _handle(self) -> None:
        head = self.head
        fields = head.fields
        if head.authority and not head.field(b"host"):
            fields = [(b"host", head.authority), *fields]
        body = b"".join(self._body) if len(self._body) != 1 else self._body[0]
        self._body = []
        self._exchange = Exchange(
            cast("Connection", self),
            head.method,
            head.path,
            list(fields),
            body,
            keep_alive=True,
            credential=head.credential,
            address=self.connection.address,
        )
        self.hub.handle(self._exchange)

    # What the exchange brings

    def answer(self, exchange: Exchange, response: Response) -> None:
        """Writes the answer (`Exchange.respond` calls this)."""
        wanted = exchange.method != "HEAD" and response.status not in NO_BODY
        if isinstance(response.body, bytes):
            body = response.body if wanted else b""
            block = self._head_block(response, len(response.body))
            self.connection.answer(self, block, body, b"")
            self._tell(response.status, len(response.body))
        else:
            self._begin_stream(response, wanted=wanted)

    def _tell(self, status: int, size: int) -> None:
        """Counts and logs an answer."""
        exchange, self._exchange = self._exchange, None  # it knows us: no cycle is left
        if self.hub.telemetry is not None and exchange is not None:
            exchange.tell(self.hub.telemetry, self.connection.client, status, size)

    def _begin_stream(self, response: Response, *, wanted: bool) -> None:
        self._status = response.status
        self.connection.start(self, self._head_block(response, None))
        if not wanted:
            self.hub.discard(response)
            self.connection.finish(self)
            self._tell(response.status, 0)
            return
        self._source = BodyStream(
            cast("Iterator[bytes]", response.body),
            self.hub.jobs,
            self._write,
            lambda complete: self._finish(complete=complete),
            chunked=False,
        )
        self._paused = bool(self.queue)
        if self._paused:
            self._source.pause()
        else:
            self._source.pull()

    def _write(self, data: bytes) -> None:
        self._written += len(data)
        self.connection.push(self, data)
        if self.queue and self._source is not None:
            self._paused = True
            self._source.pause()

    def _finish(self, *, complete: bool) -> None:
        self._source = None
        if self._gone:
            return
        self._tell(self._status, self._written)
        if complete:
            self.connection.finish(self)
        else:
            self._gone = True
            self.connection.abort_stream(self, f.INTERNAL_ERROR)

    def _refuse(self, error: FieldpostError) -> None:
        path, _ = split_target(self.head.path)
        response = self.hub.shape(path)(error, path)
        self._gone = True
        self._body.clear()
        block = self._head_block(response, len(cast("bytes", response.body)))
        self.connection.answer(self, block, cast("bytes", response.body), b"")

    def _head_block(self, response: Response, length: int | None) -> bytes:
        fields = [
            (b":status", b"%d" % response.status),
            (b"server", SERVER),
            (b"date", self.hub.clock.date),
        ]
        for name, value in response.headers:
            field = (name.lower().encode("latin-1"), value.strip().encode("latin-1"))
            if name.lower() in _OURS:
                continue
            if is_field(*field):
                fields.append(field)
            else:
                logger.warning("Dropped a response header that HTTP does not allow: %r", name)
        if length is not None and response.status not in NO_BODY:
            fields.append((b"content-length", b"%d" % length))
        return encode(fields)

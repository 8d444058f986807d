"""The half of a gRPC call that goes to the client: messages out, a status at the end."""

from __future__ import annotations

import logging
import zlib
from math import inf
from typing import TYPE_CHECKING

from scoring.errors import FieldpostError
from serve.server.grpc import status
from serve.server.grpc.heads import encode
from serve.server.grpc.reading import HEAD, framed
from serve.server.grpc.streams import Stream

if TYPE_CHECKING:
    from serve.server.exchange import Cancellable
    from serve.server.grpc.connection import GrpcConnection
    from serve.server.grpc.heads import Head
    from serve.server.grpc.methods import Session
    from serve.server.grpc.reading import MessageReader
    from serve.server.telemetry.channel import Channel

logger = logging.getLogger(__name__)

_WORTH_COMPRESSING = 1024
_HEADS = {
    name: encode(
        [
            (b":status", b"200"),
            (b"content-type", b"application/grpc"),
            (b"grpc-encoding", name.encode()),
        ]
    )
    for name in ("gzip", "deflate")
} | {"": status.HEAD}


class Replying(Stream):
    """What services say to a caller: `reply` or `fail`; for streams `send` and `finish`, too.

    Attributes:
        begun: In `perf_counter()`: when the request was whole, or the stream began.
        deadline: In `monotonic()`; infinite for none.
        job: What computes the answer.
        channel: Counts the call; None where nothing is counted.
        size_in: Bytes of the messages that came.
        size_out: Bytes of the messages that went.
        answered: A status has been sent, or nobody waits for one.
    """

    __slots__ = (
        "_reader", "_session", "_started", "answered", "begun", "channel", "deadline", "job",
        "size_in", "size_out",
    )  # fmt: skip

    def __init__(self, connection: GrpcConnection, stream_id: int, head: Head, window: int) -> None:
        super().__init__(connection, stream_id, head, window)
        self.begun = 0.0
        self.deadline = inf
        self.job: Cancellable | None = None
        self.channel: Channel | None = None
        self.size_in = self.size_out = 0
        self.answered = self._started = False
        self._session: Session | None = None
        self._reader: MessageReader | None = None

    def frame(self, data: bytes) -> bytes:
        """A message as it is sent; may be called on any thread."""
        encoding = self.head.answers_in
        if not encoding or len(data) < _WORTH_COMPRESSING:
            return framed(data)
        packer = zlib.compressobj(1, wbits=31 if encoding == "gzip" else 15)
        return framed(packer.compress(data) + packer.flush(), compressed=True)

    def reply(self, message: bytes) -> None:
        """Answers a call that has one answer, which `frame` has made ready."""
        if not self.answered:
            self.answered = True
            self.job = None
            self.size_out = len(message) - HEAD
            self.connection.answer(self, _HEADS[self.head.answers_in], message, status.DONE)
            self._count(status.OK)

    def send(self, message: bytes) -> None:
        """Sends one of several answers, which `frame` has made ready."""
        if self.answered:
            return
        self.size_out += len(message) - HEAD
        if self._started:
            self.connection.push(self, message)
        else:  # together: what is sent may bring the next request at once, and its answer
            self._started = True
            self.connection.start(self, _HEADS[self.head.answers_in], message)

    def finish(self, error: BaseException | None = None) -> None:
        """Ends a call of several answers."""
        if self.answered:
            return
        if error is not None:
            self.fail(error)
            return
        self.answered = True
        self._session = None
        if not self._started:
            self._started = True
            self.connection.start(self, _HEADS[""])
        self.connection.finish(self, status.DONE)
        self._count(status.OK)

    def fail(self, error: BaseException) -> None:
        """Ends the call with an error; one that is not in our tree is logged and told as ours."""
        if self.answered:
            return
        if not isinstance(error, FieldpostError):
            logger.error("%s failed", self.head.path.decode("latin-1"), exc_info=error)
        self._end(error, ())

    def lost(self) -> None:
        """The client has taken the call back, or gone: what has not begun is not computed."""
        if self._drop_work():
            self._count(status.CANCELLED)

    def _end(self, error: BaseException, more: tuple[tuple[bytes, bytes], ...]) -> None:
        self._drop_work()
        if self._started:
            self.connection.finish(self, status.trailers(error))
        else:
            self.connection.finish(self, status.refusal(error, more))
        self._count(status.code_of(error), error)

    def _drop_work(self) -> bool:
        """Nothing is read or computed any more; whether there was anything."""
        self.answered = True
        self._reader = None
        job, self.job = self.job, None
        session, self._session = self._session, None
        if job is not None:
            job.cancel()
        if session is not None:
            session.cancel()
        return job is not None or session is not None

    def _count(self, code: int, error: BaseException | None = None) -> None:
        if self.channel is not None:
            self.connection.service.count(self, self.channel, code, error)

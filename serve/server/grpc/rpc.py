"""One gRPC call: who asks, messages in, messages out, a status at the end."""

from __future__ import annotations

import logging
import zlib
from collections.abc import Callable
from functools import partial
from math import inf
from time import monotonic, perf_counter
from typing import TYPE_CHECKING, NamedTuple, Protocol

from scoring.errors import FieldpostError, UnsupportedMediaTypeError
from serve.server import content
from serve.server.errors import BadRequestError, RequestTimeoutError, RouteNotFoundError
from serve.server.grpc import status
from serve.server.grpc.heads import encode
from serve.server.grpc.reading import HEAD, Message, MessageReader, framed
from serve.server.grpc.streams import Stream

if TYPE_CHECKING:
    from serve.server.access.principal import Principal
    from serve.server.exchange import Cancellable
    from serve.server.grpc.connection import GrpcConnection
    from serve.server.grpc.heads import Head
    from serve.server.telemetry.channel import Channel

logger = logging.getLogger(__name__)

_ENCODINGS = frozenset({"identity", "gzip", "deflate"})
_ACCEPTED = ((b"grpc-accept-encoding", b"identity,deflate,gzip"),)
_WORTH_COMPRESSING = 1024
_INLINE_BYTES = 4096
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


class Session(Protocol):
    """A call with several messages."""

    def message(self, data: bytes) -> None:
        """The next message of the client."""
        ...

    def ended(self) -> None:
        """The client sends no more."""
        ...

    def is_full(self) -> bool:
        """Whether the next message had better wait."""
        ...

    def drained(self) -> None:
        """The client has taken all that was sent."""
        ...

    def tick(self) -> None:
        """Half a second has passed."""
        ...

    def wind_down(self) -> None:
        """The server ends."""
        ...

    def cancel(self) -> None:
        """Nobody waits any more."""
        ...


class Method(NamedTuple):
    """What a path stands for.

    Attributes:
        route: `package.Service/Method`.
        run: Answers the message of a call that has one.
        open: Begins a call that may have several.
    """

    route: str
    run: Callable[[RpcStream, bytes], None] | None = None
    open: Callable[[RpcStream], Session] | None = None


class RpcStream(Stream):
    """A call. Its methods for services: `reply` or `fail`; for streams `send` and `finish`.

    Attributes:
        begun: In `perf_counter()`: when the request was whole, or the stream began.
        deadline: In `monotonic()`; infinite for none.
        job: What computes the answer.
        channel: Counts the call; None where nothing is counted.
        size_in: Bytes of the messages that came.
        answered: A status has been sent.
    """

    __slots__ = (
        "_held", "_message", "_method", "_reader", "_session", "_started", "answered", "begun",
        "channel", "deadline", "job", "size_in", "size_out",
    )  # fmt: skip

    def __init__(self, connection: GrpcConnection, stream_id: int, head: Head, window: int) -> None:
        super().__init__(connection, stream_id, head, window)
        self.begun = 0.0
        self.deadline = inf
        self.job: Cancellable | None = None
        self.channel: Channel | None = None
        self.size_in = self.size_out = 0
        self.answered = False
        self._method: Method | None = None
        self._session: Session | None = None
        self._reader: MessageReader | None = None
        # Of a call with one: it waits for the end of the request.
        self._message: Message | None = None
        # Something has to be known first: who asks, or what a compressed message says.
        self._held = self._started = False

    # What the connection brings

    def begin(self) -> None:
        """Refuses what can be refused before any message is there."""
        head, service = self.head, self.connection.service
        method = self._method = service.methods.get(head.path)
        if method is None:
            self._refuse_path()
            return
        if service.counts:
            self.channel = service.channel(method)
        if head.timeout_s is not None:
            self.deadline = monotonic() + head.timeout_s
        if head.encoding not in _ENCODINGS or head.method != b"POST":
            self._refuse_head()
        elif self.connection.guard is None or self._admit():
            self._open()

    def receive(self, data: bytes) -> None:
        """A part of the messages."""
        size = len(data) - HEAD
        if (
            self.ended
            and self._reader is None
            and not self._held
            and size >= 0
            and not data[0]
            and int.from_bytes(data[1:HEAD], "big") == size
            and size <= self.connection.most
            and self._session is None
        ):
            if not self.answered:
                self._deliver(data[HEAD:])
        elif not self.answered:
            self._read(data)

    def is_hungry(self) -> bool:
        """Whether more may come now: a client may not send faster than it is answered."""
        return self._session is None or not self._session.is_full()

    def lost(self) -> None:
        """The client has taken the call back, or gone: what has not begun is not computed."""
        self.answered = True
        self._reader = None
        job, self.job = self.job, None
        session, self._session = self._session, None
        if job is not None:
            job.cancel()
        if session is not None:
            session.cancel()
        if job is not None or session is not None:
            self._count(status.CANCELLED)

    def held(self) -> int:
        """Bytes of messages that are not taken up, or not whole."""
        return self._reader.held if self._reader is not None else 0

    def wait(self, oldest: float) -> None:
        """A message has to come within its time in all; between messages a stream may be silent."""
        since = self.opened if self._session is None else self.since
        if since < oldest and (self._session is None or self.held()):
            self.fail(
                RequestTimeoutError(
                    "The message did not arrive in time.",
                    hint="Send it again, without a pause in it.",
                )
            )

    def wind_down(self) -> None:
        """The server ends: streams that may go on for ever end."""
        if self._session is not None:
            self._session.wind_down()

    def drained(self) -> None:
        """The client has taken all answers so far."""
        if self._session is not None:
            self._session.drained()

    def tick(self) -> None:
        """Lets a session look around."""
        if self._session is None:
            return
        try:
            self._session.tick()
        except Exception as error:  # noqa: BLE001 - told or logged by fail()
            self.fail(error)

    # Who asks

    def _admit(self) -> bool:
        """Whether the caller may ask, as far as that is known now."""
        guard, head = self.connection.guard, self.head
        assert guard is not None
        try:
            self.principal = guard.admit(head.credential, head.path, self.connection.address)
        except FieldpostError as error:
            self.fail(error)
            return False
        if self.principal is None:
            self._held = True
            guard.decide(head.credential, head.path, self._decided)
            return False
        return True

    def _decided(self, principal: Principal | None, error: FieldpostError | None) -> None:
        if self.answered:
            return
        self._held = False
        if error is not None:
            self.fail(error)
            return
        self.principal = principal
        self._open()
        self._advance()

    def _open(self) -> None:
        method = self._method
        assert method is not None
        if method.open is not None:
            self.begun = perf_counter()
            self._session = method.open(self)

    # Messages

    def _read(self, data: bytes) -> None:
        """Bytes that are not one whole message, or have to wait."""
        if self._reader is None:
            self._reader = MessageReader(self.connection.most)
        self._reader.feed(data)
        self._advance()

    def resume(self) -> None:
        """The session has room again."""
        if not self.answered:
            self._advance()
            self.connection.give_credit(self)

    def _advance(self) -> None:
        """Takes up messages that are whole, one after the other."""
        if self._held or self._reader is None:
            return
        try:
            if self._session is None:
                self._advance_single(self._reader)
            else:
                self._advance_session(self._reader, self._session)
        except FieldpostError as error:
            self.fail(error)

    def _advance_single(self, reader: MessageReader) -> None:
        """The only message, once it is known that it is the only one."""
        if self._message is None:
            self._message = reader.take()
        if self._message is not None and reader.held:
            raise _not_one("more than one")
        if self.ended:
            if self._message is None:
                raise _cut_off() if reader.held else _not_one("none")
            self._take(*self._message)

    def _advance_session(self, reader: MessageReader, session: Session) -> None:
        while not self._held and not session.is_full():
            message = reader.take()
            if message is None:
                break
            self._take(*message)
            if self.answered:
                return
        if self.ended and not self._held and not session.is_full():
            if reader.held:
                raise _cut_off()
            session.ended()

    def _take(self, compressed: bool, data: bytes) -> None:
        if not compressed:
            self._deliver(data)
        elif self.head.encoding == "identity":
            raise BadRequestError(
                "A message is compressed, and the request has no grpc-encoding.",
                hint="Send grpc-encoding with gzip or deflate.",
            )
        elif len(data) <= _INLINE_BYTES:
            self._deliver(content.decode(data, self.head.encoding, self.connection.most))
        else:
            decode = partial(content.decode, data, self.head.encoding, self.connection.most)
            self.job = self.connection.hub.jobs.submit(decode, self._inflated)
            self._held = True

    def _inflated(self, data: bytes | None, error: BaseException | None) -> None:
        """A message has been decompressed on a thread."""
        self.job = None
        if self.answered:
            return
        self._held = False
        if data is None:
            self.fail(error or RuntimeError("nothing came of a message"))
            return
        self._deliver(data)
        if self._session is not None and not self.answered:
            self.resume()

    def _deliver(self, data: bytes) -> None:
        """Hands a message to the method."""
        self.size_in += len(data)
        method = self._method
        assert method is not None
        try:
            if self._session is not None:
                self._session.message(data)
            else:
                self.begun = perf_counter()
                assert method.run is not None
                method.run(self, data)
        except Exception as error:  # noqa: BLE001 - told or logged by fail()
            self.fail(error)

    # What services say

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
        if not self.answered:
            if not self._started:
                self._started = True
                self.connection.start(self, _HEADS[self.head.answers_in])
            self.size_out += len(message) - HEAD
            self.connection.push(self, message)

    def finish(self, error: BaseException | None = None) -> None:
        """Ends a call of several answers."""
        if self.answered:
            return
        if error is not None:
            self.fail(error)
            return
        if not self._started:
            self._started = True
            self.connection.start(self, _HEADS[""])
        self.answered = True
        self._session = None
        self.connection.finish(self, status.DONE)
        self._count(status.OK)

    def fail(self, error: BaseException) -> None:
        """Ends the call with an error; one that is not in our tree is logged and told as ours."""
        if self.answered:
            return
        if not isinstance(error, FieldpostError):
            logger.error("%s failed", self.head.path.decode("latin-1"), exc_info=error)
        self._end(error, ())

    def _end(self, error: BaseException, more: tuple[tuple[bytes, bytes], ...]) -> None:
        job, self.job = self.job, None
        session, self._session = self._session, None
        self.answered = True
        self._reader = None
        if job is not None:
            job.cancel()
        if session is not None:
            session.cancel()
        if self._started:
            self.connection.finish(self, status.trailers(error))
        else:
            self.connection.finish(self, status.refusal(error, more))
        self._count(status.code_of(error), error)

    def _refuse_path(self) -> None:
        path = self.head.path.decode("latin-1")
        self.fail(
            RouteNotFoundError(
                f"There is no gRPC method {path!r} here.",
                hint="The services are inference.GRPCInferenceService and grpc.health.v1.Health.",
            )
        )

    def _refuse_head(self) -> None:
        if self.head.method != b"POST":
            self.fail(BadRequestError("gRPC calls are POST requests."))
            return
        error = UnsupportedMediaTypeError(
            f"The grpc-encoding {self.head.encoding!r} is not supported.",
            hint="Send messages as they are, or with gzip or deflate.",
            where="grpc-encoding",
        )
        self._end(error, _ACCEPTED)

    def _count(self, code: int, error: BaseException | None = None) -> None:
        if self.channel is not None:
            self.connection.service.count(self, self.channel, code, error)


def _not_one(count: str) -> FieldpostError:
    return RouteNotFoundError(
        f"The method takes one message; {count} came.", hint="Call it as a unary method."
    )


def _cut_off() -> FieldpostError:
    return BadRequestError("The request ends within a message.", hint="Send it to its end.")

"""The half of a gRPC call that comes from the client: who asks, and its messages."""

from __future__ import annotations

from functools import partial
from time import monotonic, perf_counter
from typing import TYPE_CHECKING

from scoring.errors import FieldpostError, UnauthorizedError, UnsupportedMediaTypeError
from scoring.payload import coding
from serve.server.errors import BadRequestError, RequestTimeoutError, RouteNotFoundError
from serve.server.grpc.reading import HEAD, Message, MessageReader
from serve.server.grpc.replies import Replying

if TYPE_CHECKING:
    from serve.server.access.principal import Principal
    from serve.server.grpc.connection import GrpcConnection
    from serve.server.grpc.heads import Head
    from serve.server.grpc.methods import Method, Session

_ENCODINGS = frozenset({"identity", "gzip", "deflate"})
_ACCEPTED = ((b"grpc-accept-encoding", b"identity,deflate,gzip"),)
_INLINE_BYTES = 4096


class RpcStream(Replying):
    """One call, from its head to its status."""

    __slots__ = ("_advancing", "_held", "_message", "_method")

    def __init__(self, connection: GrpcConnection, stream_id: int, head: Head, window: int) -> None:
        super().__init__(connection, stream_id, head, window)
        self._method: Method | None = None
        # Of a call with one: it waits for the end of the request.
        self._message: Message | None = None
        # Something has to be known first: who asks, or what a compressed message says.
        self._held = False
        self._advancing = False

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

    def admit_again(self) -> None:
        """Asks anew whether the caller may ask: a stream may outlive a key, and carries many.

        Raises:
            UnauthorizedError: The credential is over.
            FieldpostError: As the guard has it.
        """
        guard, head = self.connection.guard, self.head
        if guard is None:
            return
        self.principal = guard.admit(head.credential, head.path, self.connection.address)
        if self.principal is None:
            raise UnauthorizedError(
                "The bearer token is signed by a key that its issuer no longer has.",
                hint="Get a new token from the issuer, and begin another stream.",
                where="authorization",
            )

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
        # An answer that goes out at once leads here again, from within the loop that goes on.
        if self._held or self._reader is None or self._advancing:
            return
        self._advancing = True
        try:
            if self._session is None:
                self._advance_single(self._reader)
            else:
                self._advance_session(self._reader, self._session)
        except FieldpostError as error:
            self.fail(error)
        finally:
            self._advancing = False

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
            self._deliver(coding.decode(data, self.head.encoding, self.connection.most))
        else:
            decode = partial(coding.decode, data, self.head.encoding, self.connection.most)
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

    # What cannot be answered

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


def _not_one(count: str) -> FieldpostError:
    return RouteNotFoundError(
        f"The method takes one message; {count} came.", hint="Call it as a unary method."
    )


def _cut_off() -> FieldpostError:
    return BadRequestError("The request ends within a message.", hint="Send it to its end.")

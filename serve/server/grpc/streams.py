"""What gRPC calls and plain requests over HTTP/2 have in common."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from serve.server.access.principal import Principal
    from serve.server.grpc.connection import GrpcConnection
    from serve.server.grpc.heads import Head


class Stream:
    """One request and its answer.

    Attributes:
        connection: Where it goes.
        id: Of the stream.
        head: Of the request.
        window: Bytes of data that the client takes of this stream now.
        credit: Bytes of data that came, and that the client has not been told to send anew.
        received: Bytes of data that came.
        ended: The request is whole.
        closing: The answer is whole, though some of it may wait.
        queue: What waits to be sent: frames (bytes) and data (memoryviews).
        since: In the clock's time: when something was last sent or received.
        opened: In the clock's time: when the head came.
        principal: Who asks; None until that is known.
    """

    __slots__ = (
        "closing", "connection", "credit", "ended", "head", "id", "opened", "principal", "queue",
        "received", "since", "window",
    )  # fmt: skip

    def __init__(self, connection: GrpcConnection, stream_id: int, head: Head, window: int) -> None:
        self.connection = connection
        self.id = stream_id
        self.head = head
        self.window = window
        self.credit = self.received = 0
        self.ended = self.closing = False
        self.queue: deque[bytes | memoryview] = deque()
        self.since = self.opened = connection.hub.clock.now
        self.principal: Principal | None = None

    def begin(self) -> None:
        """The head is there; nothing else."""
        raise NotImplementedError

    def receive(self, data: bytes) -> None:
        """A part of the body; with `ended` set the last one, which may be empty."""
        raise NotImplementedError

    def is_hungry(self) -> bool:
        """Whether more data of a body that is not whole is welcome now."""
        return True

    def held(self) -> int:
        """Bytes of the request that are kept until it is whole."""
        raise NotImplementedError

    def lost(self) -> None:
        """The client does not want the answer any more, or has gone."""
        raise NotImplementedError

    def wait(self, oldest: float) -> None:
        """The request is not whole yet: it ends if it was awaited since before `oldest`."""
        raise NotImplementedError

    def wind_down(self) -> None:
        """The server ends: what would go on for ever ends now."""

    def tick(self) -> None:
        """Half a second has passed."""

    def drained(self) -> None:
        """All that waited has gone out; called while the answer is not whole."""

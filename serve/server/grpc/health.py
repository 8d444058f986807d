"""gRPC's health protocol: Check once, Watch until the client goes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from scoring.errors import NotFoundError
from serve.server.grpc.messages import message, parse

if TYPE_CHECKING:
    from collections.abc import Callable

    from serve.server.grpc.rpc import RpcStream

    Status = Callable[[str], int]

SERVING, NOT_SERVING, SERVICE_UNKNOWN = 1, 2, 3

Request: Any = message("grpc.health.v1.HealthCheckRequest")
Response: Any = message("grpc.health.v1.HealthCheckResponse")


def check(stream: RpcStream, data: bytes, status: Status) -> None:
    """Answers Check.

    Raises:
        NotFoundError: There is no such service.
    """
    name = parse(Request, data).service
    found = status(name)
    if found == SERVICE_UNKNOWN:
        raise NotFoundError(
            f"There is no service {name!r} here.", hint="Ask for '', the whole server."
        )
    stream.reply(stream.frame(Response(status=found).SerializeToString()))


class HealthSession:
    """A Watch: the status now, and again whenever it is another one.

    Args:
        stream: Of the call.
        status: Of a service by its name.
    """

    def __init__(self, stream: RpcStream, status: Status) -> None:
        self._stream = stream
        self._status = status
        self._name: str | None = None
        self._told: int | None = None

    def message(self, data: bytes) -> None:
        """The only message: which service."""
        if self._name is None:
            self._name = parse(Request, data).service
            self.tick()

    def ended(self) -> None:
        """The client has nothing to add; the watch goes on."""

    def tick(self) -> None:
        """Tells what has changed."""
        if self._name is None or self._stream.queue:
            return
        found = self._status(self._name)
        if found != self._told:
            self._told = found
            self._stream.send(self._stream.frame(Response(status=found).SerializeToString()))

    def drained(self) -> None:
        """The client has taken what was told."""

    def is_full(self) -> bool:
        """It takes one message, whatever waits."""
        return False

    def wind_down(self) -> None:
        """The server ends, and the watch with it."""
        self.tick()
        self._stream.finish()

    def cancel(self) -> None:
        """Nothing goes on."""

"""What stands behind the path of a gRPC method."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from serve.server.grpc.rpc import RpcStream


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

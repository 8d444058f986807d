"""One request to one model, as the model sees it: whatever protocol it came by."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from scoring.runtimes.base import Arrays
    from serve.server.telemetry.channel import Channel, Details, Phase

_PHASES = ("queue", "batch", "infer", "encode")


class Call:
    """The base of every protocol's requests. Created and settled on the event loop's thread.

    `decode` and `encode` run on the loop for quick models and small bodies, else on a model thread,
    one after the other on the same thread.

    Attributes:
        protocol: By which it came, for metrics.
        route: The path with the names of its parameters, for metrics.
        channel: Counts its answer; set by the model.
        details: For the access log and traces, where they are on; set by the connection.
        size: Bytes of the body; large ones are not decoded on the loop.
        deadline: In `time.monotonic()`; a call that has not begun by then is refused.
        begun: In `time.perf_counter()`: when the request was whole.
        cancelled: The sender has gone; what has not begun is not computed.
        inputs: What `decode` gave; set by the model.
        rows: How many rows they have; set by the model.
        times: In `time.perf_counter()`: when its run began, its batch was put together, the model
            had answered, its answers were written; set by the model.
    """

    __slots__ = (
        "begun", "cancelled", "channel", "deadline", "details", "inputs", "rows", "size", "times",
    )  # fmt: skip

    protocol: ClassVar[str] = ""
    route: ClassVar[str] = ""
    inputs: Arrays

    def __init__(self, size: int, begun: float, deadline: float = inf) -> None:
        self.size = size
        self.begun = begun
        self.deadline = deadline
        self.cancelled = False
        self.rows = 0
        self.times: tuple[float, ...] = ()
        self.channel: Channel | None = None
        self.details: Details | None = None

    def decode(self) -> Arrays:
        """One array for each input of the schema.

        Raises:
            InputError: What the sender has to change, with its place.
        """
        raise NotImplementedError

    def encode(self, outputs: Mapping[str, Any]) -> Any:
        """The protocol's answer, from one array (or list of dicts) for each output."""
        raise NotImplementedError

    def settle(self, result: Any, error: BaseException | None) -> None:
        """Answers with what `encode` gave, or tells the error. Called once, on the loop."""
        raise NotImplementedError

    def phases(self) -> Iterator[Phase]:
        """The parts of its time, for the spans of those that are traced."""
        edges = self.begun, *self.times
        yield from zip(_PHASES, edges, edges[1:])  # noqa: B905 - fewer where it failed

    def cancel(self) -> None:
        """What has not begun is not computed, and nothing is settled."""
        self.cancelled = True

    def abandon(self) -> None:
        """The client has gone (the connection calls this)."""
        self.cancel()

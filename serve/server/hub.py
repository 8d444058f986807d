"""What the connections of one server share: routes, limits, the clock, and the end of it all."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Protocol

from serve.server.clock import Clock

if TYPE_CHECKING:
    from scoring.http import Response
    from serve.server.access.guard import Gate
    from serve.server.app import Shape
    from serve.server.exchange import Exchange
    from serve.server.jobs import Jobs
    from serve.server.models.call import Call
    from serve.server.models.repository import Repository
    from serve.server.protocol import Connection
    from serve.server.settings import ServerSettings
    from serve.server.telemetry.telemetry import Telemetry

Fast = Callable[["Connection", bytes | bytearray], "Call | None"]
"""Submits the call of a plain JSON body, or of tensors behind JSON; None, or an error raised: take
the long way."""

TENSORS = b"\0"
"""Before a target whose requests have `inference-header-content-length`; none begins with it."""

_MAX_TICK_S = 0.5
_TICKS_PER_TIMEOUT = 4


class Routes(Protocol):
    """What an application offers to the connections.

    Attributes:
        fast: Request targets whose POST may go straight to a model; behind `TENSORS` where that
            is not plain JSON.
        guard: See `Hub`.
        telemetry: See `Hub`.
        ready: Whether the server takes new requests.
        repository: The models, where there are any.
    """

    guard: Gate | None
    telemetry: Telemetry | None
    ready: bool
    repository: Repository | None

    @property
    def fast(self) -> Mapping[bytes, Fast]:
        """See above."""
        ...

    def handle(self, exchange: Exchange) -> None:
        """Answers an exchange, now or later."""
        ...

    def shape(self, path: str) -> Shape:
        """The form that errors have at a path."""
        ...


class Hub:
    """The shared part of all connections; it lives on the event loop's thread.

    Args:
        settings: The limits.
        routes: The application.
        jobs: Where streamed bodies are pulled.

    Attributes:
        fast: See `Routes`.
        guard: Who may ask; None: everyone.
        telemetry: Counts and logs what is answered; None: nobody does.
        routes: The application.
        body_digits: Of the longest allowed body's length.
        ticks: Called twice a second.
        draining: Every answer is the last one of its connection.
        emptied: Set while there is no connection.
    """

    def __init__(self, settings: ServerSettings, routes: Routes, jobs: Jobs) -> None:
        self.settings = settings
        self.jobs = jobs
        self.body_digits = settings.body_digits
        self.fast = routes.fast
        self.handle = routes.handle
        self.shape = routes.shape
        self.routes = routes
        self.guard = routes.guard
        self.telemetry = routes.telemetry
        self.clock = Clock()
        self.draining = False
        self.emptied = asyncio.Event()
        self.emptied.set()
        self.ticks: list[Callable[[], object]] = []
        if self.guard is not None:
            self.ticks.append(self.guard.tick)
        if self.telemetry is not None:
            self.telemetry.watch(
                in_flight=lambda: sum(each.busy for each in self._connections),
                connections=lambda: len(self._connections),
            )
            self.ticks.append(self.telemetry.tick)
        if routes.repository is not None:
            self.ticks.append(routes.repository.tick)
        self._connections: set[Connection] = set()
        self._timer: asyncio.TimerHandle | None = None
        shortest_s = min(
            settings.header_timeout_s,
            settings.body_timeout_s,
            settings.keep_alive_timeout_s,
            settings.write_timeout_s,
        )
        self._tick_s = min(_MAX_TICK_S, shortest_s / _TICKS_PER_TIMEOUT)

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Starts the ticks that keep the clock and end what is overdue."""
        self.clock.tick()
        self._sweep()
        for tick in self.ticks:
            tick()
        self._timer = loop.call_later(self._tick_s, self.start, loop)

    def stop(self) -> None:
        """Ends the ticks and every connection that is left."""
        if self._timer is not None:
            self._timer.cancel()
        for connection in tuple(self._connections):
            connection.abort()

    def admit(self, connection: Connection) -> bool:
        """Registers a connection; False: there are as many as there may be."""
        self._connections.add(connection)
        self.emptied.clear()
        return len(self._connections) <= self.settings.max_connections

    def leave(self, connection: Connection) -> None:
        """Forgets a connection that has ended."""
        self._connections.discard(connection)
        if not self._connections:
            self.emptied.set()

    def end_idle(self) -> None:
        """Closes the connections on which nothing is asked."""
        for connection in tuple(self._connections):
            connection.end_if_idle()

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return len(self._connections)

    def discard(self, response: Response) -> None:
        """Closes the body of an answer that nobody gets, where its code runs."""
        close = getattr(response.body, "close", None)
        if close is not None:
            self.jobs.submit(close, _ignore, unbounded=True)

    def _sweep(self) -> None:
        now = self.clock.now
        oldest = now - self.settings.write_timeout_s
        for connection in tuple(self._connections):
            if connection.blocked_since <= oldest:
                connection.abort()
            elif connection.deadline <= now:
                connection.expire()


def _ignore(_result: object, _error: BaseException | None) -> None:
    """The client has gone; what its answer's end raises is nobody's."""

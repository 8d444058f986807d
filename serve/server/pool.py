"""A pool of workers behind one listening socket: started, watched, restarted, drained.

The supervisor owns the listening socket and every worker inherits it, so that connections wait in
one queue that no worker takes along when it goes (see docs/adr/0030). The pool knows no registry:
`fieldpost serve --workers N` and the local target use it alike.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from scoring.errors import TargetError
from serve.server.child import Descriptors, Failure, LogSink, WorkerSpec
from serve.server.restarts import Limits
from serve.server.slots import Slot, Surroundings, WorkerInfo

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping, Sequence
    from pathlib import Path

State = Literal["starting", "running", "degraded", "failed", "draining", "stopped"]

BACKLOG = 2048


@dataclass(frozen=True, slots=True)
class PoolInfo:
    """A pool as it is now.

    Attributes:
        state: `degraded` while a worker is missing; `failed` when none answers and one was given
            up.
        workers: One for each slot.
        restarts: Of all workers.
        last_failure: Why a worker last died, even if all is well again.
    """

    state: State
    workers: tuple[WorkerInfo, ...]
    restarts: int
    last_failure: Failure | None


class WorkerPool:
    """N workers of one package. Create it inside a running event loop.

    Args:
        spec: How a worker is started.
        listener: A bound and listening socket, which stays the caller's.
        log: Takes each line of the workers' output, and the pool's own (as `pool`).
        workers: How many.
        limits: Timeouts and restarts.
        on_change: Called whenever a worker starts, becomes ready or dies.
    """

    def __init__(
        self,
        spec: WorkerSpec,
        listener: socket.socket,
        *,
        log: LogSink,
        workers: int = 1,
        limits: Limits | None = None,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        self._limits = limits or Limits()
        self._changed = on_change
        self._pipes = _Pipes(listener.fileno())
        self._closing = asyncio.Event()
        self._settled = asyncio.Event()
        self._last_failure: Failure | None = None
        around = Surroundings(
            spec=spec,
            descriptors=self._pipes.descriptors,
            limits=self._limits,
            log=log,
            closing=self._closing,
            on_change=self._on_change,
            on_death=self._on_death,
        )
        self._slots = [Slot(f"w{number}", around) for number in range(workers)]
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Starts all workers and waits until every one is ready; none accepts connections yet.

        Raises:
            FieldpostError: One cannot load, or they were not ready in time; all are gone then.
        """
        self._tasks = [asyncio.create_task(slot.keep()) for slot in self._slots]
        try:
            # A worker that dies by a signal is tried again, but all within the limit for one.
            async with asyncio.timeout(self._limits.ready_timeout_s + 1):
                await self._settled.wait()
            hopeless = self._hopeless()
        except TimeoutError:
            hopeless = self._last_failure or Failure("The workers were not ready in time.")
        except asyncio.CancelledError:
            await self.kill()
            raise
        if hopeless is not None:
            await self.kill()
            raise hopeless.to_error()

    def accept(self) -> None:
        """Lets the workers, and those that replace them, accept connections from now on."""
        self._pipes.open_gate()

    async def drain(self) -> None:
        """Lets every worker answer what it has begun and go; kills them after the limit."""
        await self._end(self._limits.drain_timeout_s + self._limits.leave_s)

    async def kill(self) -> None:
        """Ends all workers at once."""
        await self._end(0)

    def info(self) -> PoolInfo:
        """The pool as it is now."""
        return PoolInfo(
            self._state(),
            tuple(slot.info() for slot in self._slots),
            sum(slot.restarts for slot in self._slots),
            self._last_failure,
        )

    def _state(self) -> State:
        states = {slot.state for slot in self._slots}
        if states == {"stopped"}:
            return "stopped"
        if self._closing.is_set():
            return "draining"
        if not self._settled.is_set():
            return "starting"
        if states == {"ready"}:
            return "running"
        return "failed" if "failed" in states and "ready" not in states else "degraded"

    def _hopeless(self) -> Failure | None:
        return next((slot.hopeless for slot in self._slots if slot.hopeless), None)

    def _on_change(self) -> None:
        if self._hopeless() or all(slot.state == "ready" for slot in self._slots):
            self._settled.set()
        self._changed()

    def _on_death(self, failure: Failure) -> None:
        self._last_failure = failure

    async def _end(self, patience_s: float) -> None:
        self._closing.set()
        self._changed()
        workers = [slot.worker for slot in self._slots if slot.worker is not None]
        leave = (w.stop(patience_s) if patience_s > 0 else w.kill() for w in workers)
        await asyncio.gather(*leave)
        await asyncio.gather(*self._tasks)
        self._pipes.close()


class _Pipes:
    """The descriptors that all workers of a pool inherit, and the ends that the pool holds."""

    def __init__(self, listener: int) -> None:
        lifeline_read, lifeline = os.pipe()
        gate_read, self._gate = os.pipe()
        self.descriptors = Descriptors(listener, lifeline_read, gate_read)
        self._open = {lifeline_read, lifeline, gate_read, self._gate}

    def open_gate(self) -> None:
        self._close(self._gate)

    def close(self) -> None:
        for descriptor in tuple(self._open):
            self._close(descriptor)

    def _close(self, descriptor: int) -> None:
        if descriptor in self._open:
            self._open.remove(descriptor)
            os.close(descriptor)


def open_listener(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes a free one.

    Raises:
        TargetError: The host does not resolve, or the port is taken or not allowed.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise TargetError(f"The host {host!r} cannot be listened on: {error.strerror}.") from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except (OSError, OverflowError) as error:
        listener.close()
        reason = getattr(error, "strerror", None) or str(error)
        raise TargetError(
            f"Port {port} on {host} cannot be opened: {reason}.",
            hint="End the process that listens there, or choose another port.",
        ) from error
    return listener


async def run_pool(
    spec: WorkerSpec,
    listener: socket.socket,
    *,
    log: LogSink,
    workers: int = 1,
    limits: Limits | None = None,
    on_ready: Callable[[], None] = lambda: None,
) -> None:
    """Serves with a pool until SIGINT or SIGTERM, then drains; a second signal ends it at once.

    Raises:
        FieldpostError: The workers cannot load, or died too often.
    """
    loop = asyncio.get_running_loop()
    stop, hurry, changed = asyncio.Event(), asyncio.Event(), asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, _Escalation(stop, hurry))
    pool = WorkerPool(
        spec, listener, log=log, workers=workers, limits=limits, on_change=changed.set
    )
    try:
        if not await _first(pool.start(), stop.wait()):
            return
        pool.accept()
        on_ready()
        await _first(_until_failed(pool, changed), stop.wait())
        await _first(pool.drain(), hurry.wait())
    finally:
        await pool.kill()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


def serve_pool(
    command: Sequence[str],
    *,
    env: Mapping[str, str],
    host: str,
    port: int,
    workers: int,
    log: LogSink,
    cwd: Path | None = None,
    limits: Limits | None = None,
    on_ready: Callable[[str, int], None] = lambda _host, _port: None,
) -> int:
    """Serves in the foreground until a signal, for `fieldpost serve --workers N`.

    Args:
        command: The worker's command line, such as `[python, "-m", "serve.server.worker", ROOT]`.
        env: The worker's whole environment.
        host: To listen on.
        port: 0 for a free one.
        workers: How many processes.
        log: Takes the name of a worker (or `pool`) and a line of its output.
        cwd: Where the workers start.
        limits: Timeouts and restarts.
        on_ready: Called once with host and port when all workers answer.

    Returns:
        0 after a signal.

    Raises:
        TargetError: The port cannot be opened.
        FieldpostError: The workers cannot load, or died too often.
    """
    spec = WorkerSpec(tuple(command), env, cwd)
    with open_listener(host, port) as listener:
        bound = listener.getsockname()[1]
        asyncio.run(
            run_pool(
                spec,
                listener,
                log=log,
                workers=workers,
                limits=limits,
                on_ready=lambda: on_ready(host, bound),
            )
        )
    return 0


@dataclass(frozen=True, slots=True)
class _Escalation:
    """A signal handler: the first call asks to stop, the second to hurry."""

    stop: asyncio.Event
    hurry: asyncio.Event

    def __call__(self) -> None:
        (self.hurry if self.stop.is_set() else self.stop).set()


async def _until_failed(pool: WorkerPool, changed: asyncio.Event) -> None:
    while True:
        info = pool.info()
        if info.state == "failed" and info.last_failure is not None:
            raise info.last_failure.to_error()
        changed.clear()
        await changed.wait()


async def _first(wanted: Coroutine[Any, Any, object], signal_: Coroutine[Any, Any, object]) -> bool:
    """Runs two coroutines until one ends, cancels the other; whether the first one ended."""
    tasks = [asyncio.ensure_future(wanted), asyncio.ensure_future(signal_)]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if tasks[0].done():
            tasks[0].result()
            return True
        return False
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)

"""A pool of workers on one address: started, watched, restarted, replaced, drained.

The supervisor owns the listening sockets and every worker inherits them: what waits in their queues
is there for whoever comes after a worker that goes (see docs/adr/0043). The pool knows no registry:
`fieldpost serve --workers N` and the local target use it alike.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from serve.server.child import Failure, LogSink
from serve.server.listeners import Listeners, cover
from serve.server.replacing import MemoryWatch
from serve.server.restarts import Limits
from serve.server.slots import Slot, Surroundings, WorkerInfo
from serve.server.spawning import Place, WorkerSpec

if TYPE_CHECKING:
    from collections.abc import Callable

    from serve.server.child import Worker

State = Literal["starting", "running", "degraded", "failed", "draining", "stopped"]


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
        listeners: Where they answer; the sockets stay the caller's.
        log: Takes each line of the workers' output, and the pool's own (as `pool`).
        workers: How many.
        limits: Timeouts and restarts.
        on_change: Called whenever a worker starts, becomes ready or dies.
    """

    def __init__(
        self,
        spec: WorkerSpec,
        listeners: Listeners,
        *,
        log: LogSink,
        workers: int = 1,
        limits: Limits | None = None,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        self._limits = limits or Limits()
        self._changed = on_change
        self._listeners = listeners
        self._pipes = _Pipes()
        self._closing = asyncio.Event()
        self._settled = asyncio.Event()
        self._last_failure: Failure | None = None
        self._accepting = False
        self._covered: dict[int, tuple[Worker, tuple[int, ...]]] = {}
        around = Surroundings(
            spec=spec,
            limits=self._limits,
            log=log,
            closing=self._closing,
            on_change=self._on_change,
            on_death=self._on_death,
        )
        self._slots = [Slot(place, around) for place in self._places(workers)]
        self._log = log
        self._tasks: list[asyncio.Task[None]] = []
        self._watch: asyncio.Task[None] | None = None

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
        self._accepting = True
        self._listeners.listen()
        self._pipes.open_gate()
        self._cover()
        if self._limits.worker_max_mib:
            watch = MemoryWatch(self._slots, self._limits, self._log)
            self._watch = asyncio.create_task(watch.run())

    async def drain(self, *, last: bool = False) -> None:
        """Lets every worker answer what it has begun and go; kills them after the limit.

        Args:
            last: Nobody takes over: the sockets are closed here, and end when the workers have
                emptied them. Clients that come later are refused, instead of waiting in vain.
        """
        await self._end(self._limits.drain_timeout_s + self._limits.leave_s, last=last)

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

    def pids(self) -> list[int]:
        """Of all processes, those that come or leave beside the present ones included."""
        return [worker.pid for slot in self._slots for worker in slot.processes]

    def _places(self, workers: int) -> list[Place]:
        shares = [
            tuple(each.fileno() for each in share) for share in self._listeners.shares(workers)
        ]
        every = {fd for own in shares for fd in own}
        return [
            Place(
                slot=number,
                count=workers,
                listeners=own,
                spares=tuple(sorted(every.difference(own))),
                lifeline=self._pipes.lifeline,
                gate=self._pipes.gate,
            )
            for number, own in enumerate(shares)
        ]

    def _cover(self) -> None:
        """Lets the workers that are there take the connections of those that are not."""
        if not self._accepting or self._closing.is_set():
            return
        own = {slot.place.slot: slot.place.listeners for slot in self._slots}
        present = {slot.place.slot: slot.worker for slot in self._slots if slot.answers}
        for number, spares in cover(own, set(present)).items():
            worker = present[number]
            if worker is not None and self._covered.get(number, (worker, ())) != (worker, spares):
                worker.cover(spares)
                self._covered[number] = worker, spares

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
        self._cover()
        self._changed()

    def _on_death(self, failure: Failure) -> None:
        self._last_failure = failure

    async def _end(self, patience_s: float, *, last: bool = False) -> None:
        self._closing.set()
        if last:
            self._listeners.close()
        self._changed()
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.wait([self._watch])
        workers = [worker for slot in self._slots for worker in slot.processes]
        leave = (w.stop(patience_s) if patience_s > 0 else w.kill() for w in workers)
        await asyncio.gather(*leave)
        await asyncio.gather(*self._tasks)
        self._pipes.close()


class _Pipes:
    """The descriptors that all workers of a pool inherit, and the ends that the pool holds."""

    def __init__(self) -> None:
        self.lifeline, lifeline = os.pipe()
        self.gate, self._gate = os.pipe()
        self._open = {self.lifeline, lifeline, self.gate, self._gate}

    def open_gate(self) -> None:
        """Lets the workers accept; those that come later find it open."""
        self._close(self._gate)

    def close(self) -> None:
        """Closes all of them."""
        for descriptor in tuple(self._open):
            self._close(descriptor)

    def _close(self, descriptor: int) -> None:
        if descriptor in self._open:
            self._open.remove(descriptor)
            os.close(descriptor)

"""The revisions that a supervisor runs: one that answers, and those that come and go."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from typing import TYPE_CHECKING, Any

from scoring.errors import TargetError
from serve.server.listeners import Listeners
from serve.server.pool import WorkerPool
from serve.targets.base import WorkerStatus
from serve.targets.local import processes
from serve.targets.local.launch import url_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from serve.server.pool import PoolInfo
    from serve.targets.local.launch import Launch
    from serve.targets.local.logs import LogWriter


_FIRST_PORT, _LAST_PORT = 20_000, 29_999
_ATTEMPTS = 50


def open_lasting(host: str, seed: str) -> Listeners:
    """Listens on a free port that has a good chance to be free again later.

    The kernel's own choice would be one that it also gives to outgoing connections, so that a
    stopped deployment could lose its port to any of them. These are below that range, and the
    seed (the deployment) says which are tried first, so that deployments keep apart.

    Raises:
        TargetError: The host cannot be listened on.
    """
    order = random.Random(seed)  # noqa: S311 - a choice of port is no secret
    for _ in range(_ATTEMPTS):
        with contextlib.suppress(TargetError):
            return Listeners(host, order.randint(_FIRST_PORT, _LAST_PORT))
    return Listeners(host, 0)


class Listener:
    """An address, kept for as long as a revision uses it.

    Args:
        host: To listen on.
        port: 0 for a free one.
        seed: Of the choice, for port 0.

    Attributes:
        listeners: Its sockets.
    """

    def __init__(self, host: str, port: int, seed: str = "") -> None:
        self.listeners = Listeners(host, port) if port else open_lasting(host, seed)
        self.host = host
        self.port = self.listeners.port
        self.users = 0

    def serves(self, host: str, port: int) -> bool:
        """Whether it is what was asked for."""
        return host == self.host and port in (0, self.port)

    def release(self) -> None:
        """One user less; the last one closes it."""
        self.users -= 1
        if self.users <= 0:
            self.listeners.close()


class RunningRevision:
    """One revision with its workers.

    Args:
        launch: What runs.
        listener: See below.
        metrics: The folder in which the workers share their counters.
        log: Takes their output.
        on_change: Called after each change of a worker's state.

    Attributes:
        number: Of the revision.
        url: Where it is reached.
        listener: Where it answers.
        since: When it began to answer, on the monotonic clock; 0 before.
    """

    def __init__(
        self,
        launch: Launch,
        listener: Listener,
        metrics: str,
        log: LogWriter,
        on_change: Callable[[], None],
    ) -> None:
        self.number = launch.revision
        self.url = url_of(listener.host, listener.port, tls=launch.tls)
        self.listener = listener
        self.since = 0.0
        source = f"r{launch.revision}"
        self._pool = WorkerPool(
            launch.spec(metrics),
            listener.listeners,
            log=lambda name, text: log.write(f"{source}/{name}", text),
            workers=launch.workers,
            limits=launch.limits(),
            on_change=on_change,
        )
        listener.users += 1

    async def start(self) -> None:
        """Waits until all workers are ready; raises as `WorkerPool.start` does."""
        await self._pool.start()

    def accept(self) -> None:
        """Lets the workers accept connections."""
        self.since = time.monotonic()
        self._pool.accept()

    async def leave(self) -> None:
        """Drains the workers and lets go of the listener."""
        await self._pool.drain(last=self.listener.users == 1)
        self.listener.release()

    async def abort(self) -> None:
        """Kills the workers and lets go of the listener."""
        await self._pool.kill()
        self.listener.release()

    def info(self) -> PoolInfo:
        """The workers as they are now."""
        return self._pool.info()

    @property
    def has_failed(self) -> bool:
        """Whether a worker died so often that it is no longer restarted."""
        return any(worker.state == "failed" for worker in self.info().workers)

    def pids(self) -> list[int]:
        """Of all its processes."""
        return self._pool.pids()

    def workers(self) -> list[WorkerStatus]:
        """Its workers as the status shows them."""
        info = self.info()
        return [
            WorkerStatus(
                name=worker.name,
                revision=self.number,
                state="draining" if info.state == "draining" and worker.pid else worker.state,
                pid=worker.pid,
                restarts=worker.restarts,
                uptime_s=round(worker.uptime_s, 3),
                rss_bytes=processes.rss_bytes(worker.pid) if worker.pid else None,
            )
            for worker in info.workers
        ]


class Revisions:
    """Moves traffic from one revision to the next.

    Args:
        log: Takes the workers' output.
        on_change: Called after each change of a worker's state.
        seed: Of the choice of a port.
        metrics: The folder in which all workers share their counters.

    Attributes:
        current: The one that answers; None before the first.
        coming: The one that is to become ready.
        leaving: Those that drain.
    """

    def __init__(
        self, log: LogWriter, on_change: Callable[[], None], seed: str, metrics: str
    ) -> None:
        self.current: RunningRevision | None = None
        self.coming: RunningRevision | None = None
        self.leaving: list[RunningRevision] = []
        self._log = log
        self._on_change = on_change
        self._seed = seed
        self._metrics = metrics

    def all(self) -> list[RunningRevision]:
        """All that have processes: the one that answers first."""
        some = [self.current, self.coming, *self.leaving]
        return [revision for revision in some if revision is not None]

    async def prepare(self, launch: Launch) -> RunningRevision:
        """Starts a revision beside the present one, up to where it could answer.

        Raises:
            TargetError: The port cannot be opened.
            FieldpostError: It never became ready; nothing of it is left.
        """
        self.coming = coming = RunningRevision(
            launch, self._listener(launch), self._metrics, self._log, self._on_change
        )
        try:
            await coming.start()
        except BaseException:
            await self.discard()
            raise
        return coming

    async def discard(self) -> None:
        """Ends the revision that was to come."""
        if self.coming is not None:
            await self.coming.abort()
            self.coming = None

    def switch(self) -> None:
        """Lets the one that comes answer, from here on: the one before is to leave."""
        assert self.coming is not None
        self.coming.accept()
        if self.current is not None:
            self.leaving.append(self.current)
        self.current, self.coming = self.coming, None

    async def drain_leaving(self) -> None:
        """Waits until those that leave have answered what they had begun."""
        for revision in tuple(self.leaving):
            await revision.leave()
            with contextlib.suppress(ValueError):
                self.leaving.remove(revision)

    async def drain_all(self) -> None:
        """Ends everything in good order."""
        await self.discard()
        if self.current is not None:
            self.leaving.append(self.current)
            self.current = None
        await self.drain_leaving()

    async def abort_all(self) -> None:
        """Ends everything at once."""
        await asyncio.gather(*(revision.abort() for revision in self.all()))

    def _listener(self, launch: Launch) -> Listener:
        present = self.current.listener if self.current else None
        if present is not None and present.serves(launch.host, launch.port):
            return present
        port = launch.port or (present.port if present else 0)
        try:
            return Listener(launch.host, port, self._seed)
        except TargetError as error:
            if present is not None and present.port == port:
                error.hint = "Its own revision listens there: stop it first, or set another port."
            raise


def describe(info: PoolInfo) -> dict[str, Any]:
    """The parts of a `Status` that say why a pool is not well."""
    failure = info.last_failure
    if failure is None:
        return {}
    texts = {"code": failure.code, "message": failure.message, "hint": failure.hint}
    ready = sum(worker.state == "ready" for worker in info.workers)
    note = f"{ready} of {len(info.workers)} workers answer. {failure.message}"
    return {
        "note": "" if info.state == "running" else note,
        "last_error": {key: text for key, text in texts.items() if text},
        "detail": failure.detail,
    }

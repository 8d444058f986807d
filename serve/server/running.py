"""A pool in the foreground, for `fieldpost serve --workers N`: until a signal ends it."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import tempfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from serve.server.listeners import Listeners
from serve.server.pool import WorkerPool
from serve.server.spawning import METRICS_VARIABLE, WorkerSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
    from pathlib import Path

    from serve.server.child import LogSink
    from serve.server.restarts import Limits


async def run_pool(
    spec: WorkerSpec,
    listeners: Listeners,
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
        spec, listeners, log=log, workers=workers, limits=limits, on_change=changed.set
    )
    try:
        if not await _first(pool.start(), stop.wait()):
            return
        pool.accept()
        on_ready()
        await _first(_until_failed(pool, changed), stop.wait())
        await _first(pool.drain(last=True), hurry.wait())
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
    listeners = Listeners(host, port)
    try:
        with metrics_folder(env) as complete:
            spec = WorkerSpec(tuple(command), complete, cwd)
            run = run_pool(
                spec,
                listeners,
                log=log,
                workers=workers,
                limits=limits,
                on_ready=lambda: on_ready(host, listeners.port),
            )
            asyncio.run(run)
    finally:
        listeners.close()
    return 0


_SHARED_MEMORY = "/dev/shm"  # noqa: S108 - a folder of its own is made there


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


@contextlib.contextmanager
def metrics_folder(env: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """The environment with a folder in which workers share their counters, gone afterwards.

    One that the user has named stays as it is.
    """
    if env.get(METRICS_VARIABLE):
        yield dict(env)
        return
    with tempfile.TemporaryDirectory(
        prefix="fieldpost-metrics-", ignore_cleanup_errors=True, dir=_shared_memory()
    ) as folder:
        yield {**env, METRICS_VARIABLE: folder}


def _shared_memory() -> str | None:
    """Where a container may write whose root is read-only; None for the usual place."""
    try:
        tempfile.gettempdir()
    except FileNotFoundError:
        return _SHARED_MEMORY
    return None

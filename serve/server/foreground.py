"""A server in the foreground, for `fieldpost serve`: in this process, or a pool beside it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from serve.server.cores import take_share
from serve.server.lines import is_json, with_source
from serve.server.settings import ServerSettings, from_environment

if TYPE_CHECKING:
    from pathlib import Path

OnReady = Callable[[str], None]
OnLeave = Callable[[], None]

_LEAVE_S = 5.0  # beyond the drain, until a pool kills a worker that has not gone


def settings(**flags: str | float | None) -> ServerSettings:
    """The settings from flags (None where not given), the environment and the defaults.

    Raises:
        UsageError: A value or variable is not valid.
    """
    return from_environment(os.environ, **flags)


def run(
    root: Path,
    settings: ServerSettings,
    on_ready: OnReady = lambda _url: None,
    on_leave: OnLeave = lambda: None,
) -> int:
    """Serves the package at a root until SIGINT or SIGTERM, then drains.

    Call it on the main thread. A second signal ends the drain at once.

    Args:
        root: Of an unpacked package.
        settings: With more than one worker, or a limit on a worker's memory, a pool of processes
            answers, and this one watches them.
        on_ready: Called once with the URL.
        on_leave: Called where a script that computes on past the drain makes this function not
            return: the process ends right after it.

    Returns:
        0 after a signal.

    Raises:
        UsageError: The address cannot be listened on.
        ScoringError: The model or the script does not load.
        TargetError: The workers died too often.
    """
    if needs_pool(settings):
        command = [sys.executable, "-m", "serve.server.worker", str(root)]
        return run_pool(command, settings, on_ready)
    take_share(pin=False)
    from serve.server.process import ServerProcess  # noqa: PLC0415 - a pool needs none of it here

    process = ServerProcess(root, settings, on_ready=on_ready, on_leave=on_leave)
    try:
        process.load()
    except BaseException:
        process.close()
        raise
    return process.run()


def needs_pool(settings: ServerSettings) -> bool:
    """Whether there is something to watch over: several workers, or the memory of one."""
    return settings.workers > 1 or settings.worker_max_mib > 0


def run_pool(command: Sequence[str], settings: ServerSettings, on_ready: OnReady) -> int:
    """Serves with a pool of workers; see `run`.

    Args:
        command: Of one worker.
        settings: Of the server.
        on_ready: Called once with the URL.

    Raises:
        TargetError: The port cannot be opened, or the workers died too often.
        ScoringError: The model or the script does not load.
    """
    from serve.server.restarts import Limits  # noqa: PLC0415 - one worker needs no pool
    from serve.server.running import serve_pool  # noqa: PLC0415

    def ready(host: str, port: int) -> None:
        scheme = "https" if settings.tls_cert else "http"
        on_ready(f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}")

    return serve_pool(
        command,
        env={**os.environ, **settings.to_environment()},
        host=settings.host,
        port=settings.port,
        workers=settings.workers,
        log=_show,
        limits=Limits(
            drain_timeout_s=settings.drain_timeout_s + _LEAVE_S,
            worker_max_mib=settings.worker_max_mib,
        ),
        on_ready=ready,
    )


def _show(name: str, line: str) -> None:
    sys.stderr.write(f"{with_source(name, line) if is_json(line) else f'{name}: {line}'}\n")

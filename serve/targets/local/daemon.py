"""The start of a supervisor: `python -m serve.targets.local.daemon`, its configuration on stdin.

The process takes the deployment's lock, opens the control socket, and only then goes into the
background: whoever started it waits for that, so that a start that returned is one that listens.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from serve.targets.local import control, desk, processes
from serve.targets.local.launch import EXIT_LOCKED, LOG_FOLDER, SupervisorConfig
from serve.targets.local.logs import LogWriter
from serve.targets.local.records import RegistryRecords
from serve.targets.local.state import read_state
from serve.targets.local.supervisor import Supervisor, handle

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Coroutine

LOCK_FILE = "lock"

_LOCK_WAIT_S = 10.0
_ORPHAN_GRACE_S = 3.0


def main() -> None:
    """Starts the supervisor and returns in the process that was started; see the module."""
    config = msgspec.json.decode(sys.stdin.buffer.read(), type=SupervisorConfig)
    live(Path(config.folder), lambda server, log: _run(config, server, log))


def live(
    folder: Path, run: Callable[[socket.socket, LogWriter], Coroutine[Any, Any, None]]
) -> None:
    """Becomes the one process behind a run folder, in the background, until `run` returns.

    Args:
        folder: The run folder.
        run: Gets the listening control socket and the log.

    Raises:
        SystemExit: With `EXIT_LOCKED`, where another process has the folder.
    """
    os.chdir("/")
    lock = _take_lock(folder)
    if lock is None:
        raise SystemExit(EXIT_LOCKED)
    _end_orphans(folder)
    server = control.listen(folder)
    if os.fork():
        os._exit(0)  # the lock and the socket live on in the child
    _leave_terminal()
    with LogWriter(folder / LOG_FOLDER) as log:
        asyncio.run(run(server, log))


async def _run(config: SupervisorConfig, server: socket.socket, log: LogWriter) -> None:
    folder = Path(config.folder)
    supervisor = Supervisor(folder, RegistryRecords(config.location, config.name), log)
    async with desk.open_desk(server, partial(handle, supervisor)):
        try:
            await supervisor.run()
        finally:
            forget_socket(folder)


def forget_socket(folder: Path) -> None:
    """Takes the control socket away, so that nobody comes any more."""
    with contextlib.suppress(OSError):
        (folder / control.SOCKET_NAME).unlink()


def _take_lock(folder: Path) -> int | None:
    """The lock, held until the process ends; None where another supervisor has it and listens.

    One that is on its way out has the lock but no longer listens: it is waited for.
    """
    descriptor = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + _LOCK_WAIT_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if control.is_listening(folder) or time.monotonic() > deadline:
                os.close(descriptor)
                return None
            time.sleep(0.02)
        else:
            return descriptor


def _end_orphans(folder: Path) -> None:
    """Waits for the workers of a supervisor that was killed: their lifeline has ended.

    They hold the listening socket; one that does not go would keep the port.
    """
    state = read_state(folder)
    if state is None or state.boot != processes.boot_id():
        return
    for worker in state.workers:
        processes.end(worker, _ORPHAN_GRACE_S)


def _leave_terminal() -> None:
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)


if __name__ == "__main__":
    main()

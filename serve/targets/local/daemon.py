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
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from scoring.errors import FieldpostError
from serve.targets.local import control, processes
from serve.targets.local.launch import EXIT_LOCKED, LOG_FOLDER, SupervisorConfig, error_document
from serve.targets.local.logs import LogWriter
from serve.targets.local.records import RegistryRecords
from serve.targets.local.state import read_state
from serve.targets.local.supervisor import Supervisor, handle

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

LOCK_FILE = "lock"
HEARTBEAT_S = 5.0

_LOCK_WAIT_S = 10.0
_REQUEST_TIMEOUT_S = 10.0
_ORPHAN_GRACE_S = 3.0
_LAST_WORDS_S = 2.0


def main() -> None:
    """Starts the supervisor and returns in the process that was started; see the module."""
    config = msgspec.json.decode(sys.stdin.buffer.read(), type=SupervisorConfig)
    folder = Path(config.folder)
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
        asyncio.run(_run(config, server, log))


async def _run(config: SupervisorConfig, server: socket.socket, log: LogWriter) -> None:
    folder = Path(config.folder)
    supervisor = Supervisor(folder, RegistryRecords(config.location, config.name), log)
    conversations: set[asyncio.Task[None]] = set()

    def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(_serve(supervisor, reader, writer))
        conversations.add(task)
        task.add_done_callback(conversations.discard)

    desk = await asyncio.start_unix_server(converse, sock=server, limit=control.MAX_LINE_BYTES)
    try:
        await supervisor.run()
    finally:
        with contextlib.suppress(OSError):
            (folder / control.SOCKET_NAME).unlink()
        desk.close()
        if conversations:
            await asyncio.wait(conversations, timeout=_LAST_WORDS_S)


async def _serve(
    supervisor: Supervisor, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """One connection: a request, its progress, its end. It goes on if the client does not."""

    def tell(event: dict[str, Any]) -> None:
        with contextlib.suppress(OSError, RuntimeError):
            writer.write(msgspec.json.encode(event) + b"\n")

    try:
        async with asyncio.timeout(_REQUEST_TIMEOUT_S):
            line = await reader.readline()
        if not line:
            return  # someone who looked whether we are here
        tell(await _answer(supervisor, msgspec.json.decode(line, type=dict[str, Any]), tell))
        await writer.drain()
    except (TimeoutError, OSError, ValueError, msgspec.DecodeError) as error:
        tell({"event": "failed", "error": error_document(error)})
    finally:
        writer.close()


async def _answer(
    supervisor: Supervisor, request: dict[str, Any], tell: Callable[[dict[str, Any]], None]
) -> dict[str, Any]:
    def progress(text: str) -> None:
        tell({"event": "progress", "text": text})

    # A task of its own: a launch that `stop` cancels still gets its answer.
    work = asyncio.ensure_future(handle(supervisor, request, progress))
    while not (await asyncio.wait([work], timeout=HEARTBEAT_S))[0]:
        progress("")
    if work.cancelled():
        error = {"code": "target", "message": "The deployment was stopped meanwhile."}
        return {"event": "failed", "error": error}
    failure = work.exception()
    if failure is None:
        return {"event": "done", "result": work.result()}
    detail = failure.detail if isinstance(failure, FieldpostError) else ""
    return {"event": "failed", "error": error_document(failure), "detail": detail}


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

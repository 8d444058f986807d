"""`python -m serve.endpoints.daemon`: the process behind an endpoint on this machine.

It supervises the workers of the front as a deployment's supervisor does its own, follows the
endpoint's record, and leads promotions. Its configuration comes on stdin: it may hold a password.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from serve.endpoints.conductor import Conductor
from serve.endpoints.records import EndpointRecords
from serve.targets.local import desk
from serve.targets.local.daemon import forget_socket, live
from serve.targets.local.launch import SupervisorConfig
from serve.targets.local.supervisor import Supervisor, handle

if TYPE_CHECKING:
    import socket

    from serve.targets.local.logs import LogWriter


def main() -> None:
    """Goes into the background once the control socket listens."""
    config = msgspec.json.decode(sys.stdin.buffer.read(), type=SupervisorConfig)
    live(Path(config.folder), lambda server, log: _run(config, server, log))


async def _run(config: SupervisorConfig, server: socket.socket, log: LogWriter) -> None:
    folder = Path(config.folder)
    supervisor = Supervisor(folder, EndpointRecords(config.location, config.name), log)
    conductor = Conductor(folder, config.location, config.name, log)

    async def answer(request: dict[str, Any], tell: Callable[[str], None]) -> Any:
        match request.get("op"):
            case "sync":
                return await conductor.told()
            case "report":
                return await conductor.report()
            case "launch":
                await conductor.sync()  # the workers read what it writes
        return await handle(supervisor, request, tell)

    async with desk.open_desk(server, answer):
        following = asyncio.ensure_future(conductor.run())
        try:
            await supervisor.run()
        finally:
            forget_socket(folder)
            following.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await following
            await conductor.close()


if __name__ == "__main__":
    main()

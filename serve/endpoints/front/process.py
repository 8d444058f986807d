"""`python -m serve.endpoints.front.process`: one worker of a front, under a supervisor.

It speaks the worker's contract (docs/explanation/architecture.md), so that the pool of the local
target keeps it. Its traffic is in a file of the endpoint's folder when it starts; changes come over
a socket of its own, in a folder of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import signal
import socket
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import uvloop

from scoring.accepting import Acceptor, close_all, inherited
from scoring.errors import FieldpostError, TargetError
from scoring.workercontract import Contract
from serve.endpoints.front import siblings
from serve.endpoints.front.config import (
    FOLDER_VARIABLE,
    SETTINGS_VARIABLE,
    FrontConfig,
    FrontSettings,
    read_config,
)
from serve.endpoints.front.downstream import Downstream
from serve.endpoints.front.front import Front
from serve.targets.local import control, desk

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

logger = logging.getLogger(__name__)

EXIT_USAGE = 2
EXIT_NOT_LOADED = 3
_IDLE_GRACE_S = 2.0
_LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class FrontProcess:
    """One worker of a front.

    Args:
        folder: Of the endpoint.
        settings: Of the endpoint.
        contract: What the supervisor has handed over.
    """

    def __init__(self, folder: Path, settings: FrontSettings, contract: Contract) -> None:
        self._folder = folder
        self._settings = settings
        self._contract = contract
        self._own, self._spares = inherited(contract)
        self._tls = _tls(settings)
        self._config = read_config(folder)
        self._stopping = asyncio.Event()
        self._desk_folder = folder / siblings.name_of(contract.worker_slot)
        self._front: Front

    async def run(self) -> None:
        """Answers until a signal or the end of the lifeline, drains, and returns."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        self._watch(self._contract.lifeline_fd, self._stopping.set)
        others = partial(siblings.reports, self._folder, without=self._desk_folder)
        self._front = Front(self._settings, self._config, others)
        self._front.start()
        self._desk_folder.mkdir(mode=0o700, exist_ok=True)
        try:
            server = control.listen(self._desk_folder)
            async with desk.open_desk(server, self._handle):
                # What was changed between reading the file and listening here came to nobody.
                self._front.apply(read_config(self._folder))
                await self._serve()
        finally:
            await self._front.stop()
            shutil.rmtree(self._desk_folder, ignore_errors=True)

    async def _serve(self) -> None:
        acceptor = Acceptor(self._accept, self._take, self._own, self._spares)
        try:
            _report(self._contract, {"state": "ready", "pid": os.getpid()})
            if not await self._pass_gate():
                return
            await acceptor.open()
            if self._contract.cover_fd is not None:
                acceptor.follow(self._contract.cover_fd)
            await self._stopping.wait()
            self._front.draining = True
            await acceptor.leave()
            await self._drain()
        finally:
            acceptor.close()
            close_all(self._own)

    async def _drain(self) -> None:
        front = self._front
        if not front.connections:
            return
        grace_s = min(_IDLE_GRACE_S, self._settings.drain_timeout_s)
        if not await _within(grace_s, front.emptied.wait()):
            front.end_idle()
            await _within(self._settings.drain_timeout_s - grace_s, front.emptied.wait())

    async def _handle(self, request: dict[str, Any], _tell: Callable[[str], None]) -> Any:
        match request.get("op"):
            case "traffic":
                config = msgspec.convert(request["config"], FrontConfig, str_keys=True)
                if config.generation >= self._front.config.generation:
                    self._front.apply(config)
                return {"generation": self._front.config.generation}
            case "report":
                return {"report": msgspec.json.encode(self._front.report()).decode()}
        raise TargetError(f"Unknown request {request.get('op')!r}.")

    async def _accept(self, listener: socket.socket) -> asyncio.Server:
        loop = asyncio.get_running_loop()
        return await loop.create_server(
            lambda: Downstream(self._front), sock=listener, backlog=2048, ssl=self._tls
        )

    async def _take(self, client: socket.socket) -> None:
        client.setblocking(False)
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError):  # it has gone, or speaks no TLS
            await loop.connect_accepted_socket(
                lambda: Downstream(self._front), client, ssl=self._tls
            )

    async def _pass_gate(self) -> bool:
        """Waits until the worker may accept; False: it is to go before that."""
        if self._contract.gate_fd is None:
            return True
        opened = asyncio.Event()
        self._watch(self._contract.gate_fd, opened.set)
        waits = [asyncio.ensure_future(each.wait()) for each in (opened, self._stopping)]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        return opened.is_set()

    def _watch(self, descriptor: int | None, ended: Callable[[], None]) -> None:
        """Calls back once at the end of a pipe."""
        if descriptor is None:
            return
        loop = asyncio.get_running_loop()

        def look(descriptor: int = descriptor) -> None:
            with contextlib.suppress(BlockingIOError):
                if not os.read(descriptor, 4096):
                    loop.remove_reader(descriptor)
                    ended()

        loop.add_reader(descriptor, look)


async def _within(seconds: float, wait: Any) -> bool:
    """Whether something ended in time."""
    try:
        async with asyncio.timeout(seconds):
            await wait
    except TimeoutError:
        return False
    return True


def _tls(settings: FrontSettings) -> ssl.SSLContext | None:
    if not settings.tls_cert:
        return None
    from serve.server.access import tls  # noqa: PLC0415 - most fronts have none
    from serve.server.settings import ServerSettings  # noqa: PLC0415

    return tls.context(ServerSettings(tls_cert=settings.tls_cert, tls_key=settings.tls_key))


def _report(contract: Contract, document: dict[str, Any]) -> None:
    if contract.status_fd is None:
        return
    with contextlib.suppress(OSError), open(contract.status_fd, "wb", buffering=0) as status:  # noqa: PTH123
        status.write(msgspec.json.encode(document) + b"\n")


def main() -> int:
    """Answers until it is told to go: 0 after a drain, 3 where it could not begin."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format=_LOG_FORMAT)
    try:
        contract = Contract.from_environment(os.environ)
        folder = Path(os.environ[FOLDER_VARIABLE])
        settings = msgspec.json.decode(os.environ[SETTINGS_VARIABLE], type=FrontSettings)
    except (FieldpostError, KeyError, msgspec.DecodeError) as error:
        logger.error("The front was started without what it needs: %s", error)  # noqa: TRY400
        return EXIT_USAGE
    try:
        process = FrontProcess(folder, settings, contract)
    except FieldpostError as error:
        _report(contract, {"state": "failed", "error": error.to_dict(), "detail": error.detail})
        return EXIT_NOT_LOADED
    except (OSError, msgspec.DecodeError) as error:
        sentence = {"code": "target", "message": f"The front's traffic cannot be read: {error}."}
        _report(contract, {"state": "failed", "error": sentence, "detail": ""})
        return EXIT_NOT_LOADED
    uvloop.run(process.run())
    return 0


if __name__ == "__main__":
    sys.exit(main())

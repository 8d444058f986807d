"""`python -m edge.circuits.worker ROOT`: one circuit, served by the contract that workers have.

docs/explanation/architecture.md has the contract. It runs with the agent's own interpreter and
needs nothing of the package but its model layer.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from edge.circuits.service import Service
from edge.circuits.serving import Serving
from edge.circuits.settings import Settings, from_environment
from scoring import bundle as bundles
from scoring.accepting import Acceptor, close_all, inherited
from scoring.errors import FieldpostError, UsageError
from scoring.quantum import pure
from scoring.workercontract import Contract
from scoring.workerreports import (
    EXIT_NOT_LOADED,
    EXIT_USAGE,
    LOG_FORMAT,
    report_failure,
    report_ready,
)

logger = logging.getLogger(__name__)

_ARGUMENTS: Final = 2
_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


def main(arguments: Sequence[str]) -> int:
    """Serves the circuit below a root until it is told to go.

    Returns:
        0 after a drain, 2 for wrong usage, 3 where the circuit does not load.
    """
    logging.basicConfig(level=logging.INFO, format=LOG_FORMAT)
    if len(arguments) != _ARGUMENTS:
        logger.error("usage: python -m edge.circuits.worker ROOT")
        return EXIT_USAGE
    try:
        contract = Contract.from_environment(os.environ)
    except FieldpostError as error:
        logger.error("%s", error.message)  # noqa: TRY400 - the message is all there is to say
        return EXIT_USAGE
    try:
        settings = from_environment(os.environ)
        service = load(Path(arguments[1]), settings)
        own, spares = _sockets(contract, settings)
    except Exception as error:  # noqa: BLE001 - whatever it is, the supervisor is told
        report_failure(contract, error, logger)
        return EXIT_NOT_LOADED
    gc.collect()
    gc.freeze()
    asyncio.run(_run(Serving(service, settings), service, contract, own, spares))
    return 0


def load(root: Path, settings: Settings) -> Service:
    """The circuit of a package.

    Raises:
        ModelFileError: There is none, or none that plain Python serves.
    """
    from scoring.quantum.describing import describe  # noqa: PLC0415 - packages carry their schema

    bundle = bundles.read(root)
    classifier = pure.load(root / "model" / bundle.model_path)
    schema = bundle.schema or describe(classifier.model)
    return Service(bundle, schema, classifier, settings)


def _sockets(
    contract: Contract, settings: Settings
) -> tuple[list[socket.socket], dict[int, socket.socket]]:
    if contract.listen_fd:
        return inherited(contract)
    try:
        family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
        return [socket.create_server((settings.host, settings.port), family=family)], {}
    except OSError as error:
        raise UsageError(
            f"Port {settings.port} on {settings.host} cannot be opened: {error.strerror}."
        ) from error


async def _run(
    serving: Serving,
    service: Service,
    contract: Contract,
    own: list[socket.socket],
    spares: dict[int, socket.socket],
) -> None:
    loop = asyncio.get_running_loop()
    stopping, opened = asyncio.Event(), asyncio.Event()
    for number in _SIGNALS:
        loop.add_signal_handler(number, stopping.set)
    _watch(contract.lifeline_fd, stopping.set)
    _watch(contract.gate_fd, opened.set)
    acceptor = Acceptor(serving.listen, serving.take, own, spares)
    try:
        if contract.gate_fd is not None:
            _report_ready(contract, own)
            await _first(opened, stopping)
            if stopping.is_set():
                return
        await acceptor.open()
        if contract.cover_fd is not None:
            acceptor.follow(contract.cover_fd)
        if contract.gate_fd is None:
            _report_ready(contract, own)
        await stopping.wait()
        service.ready = False
        await acceptor.leave()
        await serving.drain()
    finally:
        acceptor.close()
        close_all([*own, *spares.values()])


async def _first(*events: asyncio.Event) -> None:
    tasks = [asyncio.ensure_future(event.wait()) for event in events]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()


def _watch(descriptor: int | None, ended: Callable[[], None]) -> None:
    """Calls back once at the end of a pipe."""
    if descriptor is None:
        return
    loop = asyncio.get_running_loop()
    os.set_blocking(descriptor, False)

    def look(pipe: int = descriptor) -> None:
        with contextlib.suppress(BlockingIOError):
            if not os.read(pipe, 4096):
                loop.remove_reader(pipe)
                ended()

    loop.add_reader(descriptor, look)


def _report_ready(contract: Contract, own: list[socket.socket]) -> None:
    host, port = own[0].getsockname()[:2]
    url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    report_ready(contract, url, logger)


if __name__ == "__main__":
    sys.exit(main(sys.argv))

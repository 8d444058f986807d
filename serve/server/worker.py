"""`python -m serve.server.worker ROOT`: one worker under a supervisor.

docs/explanation/architecture.md has the contract between the two. Without a supervisor, as in a
container, it is the server: one worker, or the pool of as many as its settings want.
"""

from __future__ import annotations

import logging
import os
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from scoring.errors import FieldpostError
from scoring.workercontract import Contract
from scoring.workerreports import (
    EXIT_NOT_LOADED,
    EXIT_USAGE,
    LOG_FORMAT,
    report_failure,
    report_ready,
)
from serve.server.cores import take_share
from serve.server.foreground import needs_pool, run_pool
from serve.server.settings import from_environment
from serve.server.telemetry import quiet

if TYPE_CHECKING:
    from collections.abc import Sequence

_ARGUMENTS = 2

logger = logging.getLogger(__name__)


def main(arguments: Sequence[str]) -> int:
    """Serves the package at a root until it is told to go.

    Returns:
        0 after a drain, 2 for wrong usage, 3 where the model or the script does not load.
    """
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format=LOG_FORMAT)
    quiet.install()
    if len(arguments) != _ARGUMENTS:
        logger.error("usage: python -m serve.server.worker ROOT")
        return EXIT_USAGE
    try:
        contract = Contract.from_environment(os.environ)
    except FieldpostError as error:
        logger.error("%s", error.message)  # noqa: TRY400 - the message is all there is to say
        return EXIT_USAGE
    for name in contract.variables():
        os.environ.pop(name, None)  # not for the children of a script
    return _serve(Path(arguments[1]).absolute(), contract)


def _serve(root: Path, contract: Contract) -> int:
    ready = partial(report_ready, contract, logger=logger)
    try:
        settings = from_environment()
        if not contract.listen_fd and needs_pool(settings):
            command = [sys.executable, *sys.orig_argv[1:]]
            return run_pool(command, settings, ready)
        _enter_code(root)
        take_share(contract.worker_slot, contract.worker_count, pin=settings.pin == "auto")
        from serve.server.process import ServerProcess  # noqa: PLC0415 - may lack a package

        process = ServerProcess(root, settings, contract, ready)
        process.load()
    except BaseException as error:  # noqa: BLE001 - a script may raise anything; all is reported
        report_failure(contract, error, logger)
        return EXIT_NOT_LOADED
    return process.run()


def _enter_code(root: Path) -> None:
    """Goes to the script's folder, where Azure ML starts scripts: they open files beside them.

    Only from the package's root, where a target starts a worker: one of `fieldpost serve` stays
    where its user is, as Azure's server in the foreground does.
    """
    code = root / "code"
    if code.is_dir() and Path.cwd().samefile(root):
        os.chdir(code)


if __name__ == "__main__":
    sys.exit(main(sys.argv))

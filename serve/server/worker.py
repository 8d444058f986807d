"""`python -m serve.server.worker ROOT`: one worker under a supervisor.

docs/explanation/architecture.md has the contract between the two. Without a supervisor, as in a
container, it is the server: one worker, or the pool of as many as its settings want.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

import orjson

from scoring.errors import FieldpostError
from scoring.workercontract import Contract
from serve.server.cores import take_share
from serve.server.foreground import needs_pool, run_pool
from serve.server.settings import from_environment
from serve.server.telemetry import quiet

if TYPE_CHECKING:
    from collections.abc import Sequence

EXIT_USAGE = 2
EXIT_NOT_LOADED = 3
_ARGUMENTS = 2
_LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"

logger = logging.getLogger(__name__)


def main(arguments: Sequence[str]) -> int:
    """Serves the package at a root until it is told to go.

    Returns:
        0 after a drain, 2 for wrong usage, 3 where the model or the script does not load.
    """
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format=_LOG_FORMAT)
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
    try:
        settings = from_environment()
        if not contract.listen_fd and needs_pool(settings):
            command = [sys.executable, *sys.orig_argv[1:]]
            return run_pool(command, settings, lambda url: _report_ready(contract, url))
        _enter_code(root)
        take_share(contract.worker_slot, contract.worker_count, pin=settings.pin == "auto")
        from serve.server.process import ServerProcess  # noqa: PLC0415 - may lack a package

        process = ServerProcess(root, settings, contract, lambda url: _report_ready(contract, url))
        process.load()
    except BaseException as error:  # noqa: BLE001 - a script may raise anything; all is reported
        _report_failure(contract, error)
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


def _report_ready(contract: Contract, url: str) -> None:
    logger.info("Ready: %s", url)
    _report(contract, {"state": "ready", "url": url, "pid": os.getpid()})


def _report_failure(contract: Contract, error: BaseException) -> None:
    detail = getattr(error, "detail", "")
    if isinstance(error, FieldpostError):
        document = error.to_dict()
    else:
        document = {"code": "internal", "message": f"{type(error).__name__}: {error}"}
        detail = detail or "".join(traceback.format_exception(error))
    logger.error("%s%s", document["message"], f"\n{detail}" if detail else "")
    _report(contract, {"state": "failed", "error": document, "detail": detail})


def _report(contract: Contract, document: dict[str, object]) -> None:
    if contract.status_fd is None:
        return
    # The supervisor may have gone; its lifeline says so.
    with contextlib.suppress(OSError), open(contract.status_fd, "wb", buffering=0) as status:  # noqa: PTH123
        status.write(orjson.dumps(document) + b"\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv))

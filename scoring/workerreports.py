"""What a worker says of itself: to its supervisor by one line, to people by its log and its exit.

docs/explanation/architecture.md has the contract.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import traceback
from typing import TYPE_CHECKING, Final

from scoring.errors import FieldpostError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from scoring.workercontract import Contract

EXIT_USAGE: Final = 2
EXIT_NOT_LOADED: Final = 3
"""The exit status of a worker whose model or script does not load, as Azure ML has it."""

LOG_FORMAT: Final = "%(asctime)s %(levelname)s %(name)s: %(message)s"


def report_ready(contract: Contract, url: str, logger: logging.Logger) -> None:
    """Says that requests are answered.

    Args:
        contract: What the supervisor has handed over.
        url: Where they are answered.
        logger: The worker's.
    """
    logger.info("Ready: %s", url)
    _report(contract, {"state": "ready", "url": url, "pid": os.getpid()})


def report_failure(contract: Contract, error: BaseException, logger: logging.Logger) -> None:
    """Says why the worker does not start.

    Args:
        contract: What the supervisor has handed over.
        error: Of our tree, or whatever a script has raised.
        logger: The worker's.
    """
    detail = getattr(error, "detail", "")
    if isinstance(error, FieldpostError):
        document = error.to_dict()
    else:
        document = {"code": "internal", "message": f"{type(error).__name__}: {error}"}
        detail = detail or "".join(traceback.format_exception(error))
    logger.error("%s%s", document["message"], f"\n{detail}" if detail else "")
    _report(contract, {"state": "failed", "error": document, "detail": detail})


def _report(contract: Contract, document: Mapping[str, object]) -> None:
    if contract.status_fd is None:
        return
    # Escaped: half a character in the name of a file would be no UTF-8. The supervisor may have
    # gone; its lifeline says so.
    line = json.dumps(document).encode() + b"\n"
    with contextlib.suppress(OSError), open(contract.status_fd, "wb", buffering=0) as status:  # noqa: PTH123
        status.write(line)

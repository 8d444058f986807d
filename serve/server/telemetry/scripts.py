"""What the code of a scoring script has of traces: the context of its request, and its own spans.

That takes OpenTelemetry's packages, which are a script's to bring. Its API is enough to find the
context, to hand it on with what the script asks of others; spans of its own take the SDK. Without
them requests are traced all the same. Servers of models import nothing of all that.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextlib import AbstractContextManager

    from serve.server.telemetry.context import Trace
    from serve.server.telemetry.traces import Tracer

logger = logging.getLogger(__name__)

T = TypeVar("T")


class _Process:
    """As OpenTelemetry has one provider in a process, so there is one of these.

    Attributes:
        runs_script: A script answers here.
        active: Makes a context the current one; None where nobody would look for it.
    """

    runs_script = False
    active: Callable[[Trace], AbstractContextManager[None]] | None = None


def expect() -> None:
    """Says that this process runs a script: the next tracer that is opened is for it, too."""
    _Process.runs_script = True


def connect(tracer: Tracer) -> None:
    """Makes a tracer the one that a script's code finds, if there is a script that may look."""
    if not _Process.runs_script:
        return
    try:
        from serve.server.telemetry import scriptcontext  # noqa: PLC0415 - heavy, may be missing
    except ImportError as error:
        logger.info("A script's code sees no context of traces: %s", error)
        return
    _Process.active = scriptcontext.active
    try:
        from serve.server.telemetry import scriptspans  # noqa: PLC0415 - heavy, may be missing
    except ImportError as error:
        logger.info("A script's own spans are not sent: %s", error)
        return
    scriptspans.provide(tracer)


def within(trace: Trace, call: Callable[[], T]) -> T:
    """Calls something that sees the context of a request."""
    if _Process.active is None:
        return call()
    with _Process.active(trace):
        return call()


async def within_task(trace: Trace, start: Callable[..., Awaitable[T]], *arguments: Any) -> T:
    """Awaits something that sees the context of a request."""
    if _Process.active is None:
        return await start(*arguments)
    with _Process.active(trace):
        return await start(*arguments)

"""What targets say of a deployment: that it answers, and what really runs."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

StatusState = Literal["starting", "running", "degraded", "failed", "down", "stopped"]
"""`down`: it should run, and nothing does. `failed`: what should answer was given up."""


class DeployResult(msgspec.Struct, frozen=True):
    """A revision that answers.

    Attributes:
        revision: Its number.
        url: Where it answers.
        ready_s: From the request until every worker was ready.
    """

    revision: int
    url: str
    ready_s: float


class WorkerStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One process (or container, or pod) that answers.

    Attributes:
        name: Within its revision.
        revision: The revision that it belongs to.
        state: `starting`, `ready`, `waiting` (before a restart), `failed`, `draining`, `stopped`.
        pid: None where there is no process now, or none on this machine.
        restarts: Since its revision started.
        uptime_s: Of the present process.
        rss_bytes: Resident memory; None where unknown.
    """

    name: str
    revision: int
    state: str
    pid: int | None = None
    restarts: int = 0
    uptime_s: float = 0.0
    rss_bytes: int | None = None


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """What really runs.

    Attributes:
        state: See `StatusState`.
        revision: The one that answers (or would); None for none.
        url: Where; empty for nowhere yet.
        workers: Those of the revision that answers first, then those that come and go.
        restarts: Of all workers of the revision.
        uptime_s: Since the revision answers.
        note: Why it is `down`, `failed` or `degraded`, in one sentence.
        last_error: Why a worker, or the last deployment, last failed: an error's document.
        detail: The traceback, or the end of the output, that belongs to `last_error`.
    """

    state: StatusState
    revision: int | None = None
    url: str = ""
    workers: tuple[WorkerStatus, ...] = ()
    restarts: int = 0
    uptime_s: float = 0.0
    note: str = ""
    last_error: dict[str, Any] | None = None
    detail: str = ""

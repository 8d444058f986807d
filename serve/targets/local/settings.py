"""What `--set` takes for the local target."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping

Positive = Annotated[int, msgspec.Meta(ge=1)]
Seconds = Annotated[float, msgspec.Meta(gt=0, le=86_400)]


class LocalSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of a deployment on this machine.

    Attributes:
        port: 0 keeps the deployment's port, or chooses a free one for its first revision.
        host: To listen on.
        workers: Processes.
        ready_timeout_s: Until a worker has loaded its model.
        drain_timeout_s: For requests that a leaving worker has begun.
        max_restarts: Deaths of one worker within a minute that are answered by a restart.
        worker_max_mib: Memory of one worker (and its children) beyond which it is replaced while
            it answers. Default: no limit.
        scoring_timeout_ms: For one answer. This and what follows is the server's own by default.
        pin: `off` leaves the choice of the workers' cores to the kernel.
        azureml_compat: `strict` also answers errors as Azure ML does.
        log_level: Of the worker.
        threads: That run a model which may run on several at once.
        max_body_bytes: The longest request body.
        max_pending: Requests that wait; more are told to come back.
        env: Environment variables of the worker. Their values are never shown.
    """

    port: Annotated[int, msgspec.Meta(ge=0, le=65_535)] = 0
    host: Annotated[str, msgspec.Meta(min_length=1)] = "127.0.0.1"
    workers: Annotated[int, msgspec.Meta(ge=1, le=256)] = 1
    ready_timeout_s: Seconds = 60.0
    drain_timeout_s: Seconds = 30.0
    max_restarts: Annotated[int, msgspec.Meta(ge=0, le=1000)] = 5
    worker_max_mib: Positive | None = None
    scoring_timeout_ms: Positive | None = None
    pin: Literal["auto", "off"] | None = None
    azureml_compat: Literal["corrected", "strict"] | None = None
    log_level: Literal["debug", "info", "warning", "error"] | None = None
    threads: Positive | None = None
    max_body_bytes: Positive | None = None
    max_pending: Positive | None = None
    env: dict[str, str] = {}


def memory_limit(settings: LocalSettings) -> int:
    """The MiB beyond which a worker is replaced, also where the server's own variable says it."""
    given = settings.env.get("FIELDPOST_SERVER_WORKER_MAX_MIB", "")
    if settings.worker_max_mib is None and given.isascii() and given.isdigit():
        return int(given)  # any other text the worker itself refuses
    return settings.worker_max_mib or 0


def worker_environment(settings: LocalSettings, base: Mapping[str, str]) -> dict[str, str]:
    """The environment of a worker: what was set, over the base, and the user's own last.

    Only what was set is passed: the server in the package may be of another release, which has
    its own defaults and refuses variables that it does not know.
    """
    passed = {
        "FIELDPOST_SERVER_DRAIN_TIMEOUT_S": settings.drain_timeout_s,
        "FIELDPOST_SERVER_AZUREML_COMPAT": settings.azureml_compat,
        "FIELDPOST_SERVER_PIN": settings.pin,
        "FIELDPOST_SERVER_THREADS": settings.threads,
        "FIELDPOST_SERVER_MAX_BODY_BYTES": settings.max_body_bytes,
        "FIELDPOST_SERVER_MAX_PENDING": settings.max_pending,
        "FIELDPOST_SERVER_SCORING_TIMEOUT_MS": settings.scoring_timeout_ms,
        "AZUREML_LOG_LEVEL": settings.log_level.upper() if settings.log_level else None,
    }
    given = {name: f"{value}" for name, value in passed.items() if value is not None}
    return {**base, **given, **settings.env}

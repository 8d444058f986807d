"""What `--set` takes for the local target."""

from __future__ import annotations

import difflib
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec

from scoring.errors import UsageError
from serve.server.settings import PREFIX, ServerSettings, from_environment
from serve.targets.settings import SERVER_PREFIX, parse_settings

if TYPE_CHECKING:
    from collections.abc import Mapping

JOBS_FOLDER = "jobs"
"""In the run folder: asynchronous jobs, which outlive revisions and stops."""

Positive = Annotated[int, msgspec.Meta(ge=1)]
Seconds = Annotated[float, msgspec.Meta(gt=0, le=86_400)]


class ServingSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of a deployment whose workers are our servers, wherever they run.

    Attributes:
        port: 0 keeps the deployment's port, or chooses a free one for its first revision.
        host: To listen on.
        workers: Processes.
        ready_timeout_s: Until a worker has loaded its model.
        drain_timeout_s: For requests that a leaving worker has begun.
        scoring_timeout_ms: For one answer. This and what follows is the server's own by default.
        pin: `off` leaves the choice of the workers' cores to the kernel.
        azureml_compat: `strict` also answers errors as Azure ML does.
        log_level: Of the worker.
        threads: That run a model which may run on several at once.
        max_body_bytes: The longest request body.
        max_pending: Requests that wait; more are told to come back.
        max_batch_rows: The most rows of one run of a model.
        api_keys: A file of hashed API keys (`fieldpost key create`).
        rate_limit: Requests per second of one key, or of one address where there are no keys.
        rate_burst: Requests that may come at once.
        tls_cert: A PEM file of the certificate and its chain; the URL is https with it.
        tls_key: The PEM file of its key.
        tls_client_ca: A PEM file of the authorities of clients' certificates.
        access_log: `-` for the deployment's log, or a file.
        traces: The OTLP endpoint to which spans go.
        jobs_dir: Where asynchronous jobs are kept. Default: with the deployment, until its end.
        server: Every other setting of the server, by its name.
        env: Environment variables of the worker. Their values are never shown.
    """

    port: Annotated[int, msgspec.Meta(ge=0, le=65_535)] = 0
    host: Annotated[str, msgspec.Meta(min_length=1)] = "127.0.0.1"
    workers: Annotated[int, msgspec.Meta(ge=1, le=256)] = 1
    ready_timeout_s: Seconds = 60.0
    drain_timeout_s: Seconds = 30.0
    scoring_timeout_ms: Positive | None = None
    pin: Literal["auto", "off"] | None = None
    azureml_compat: Literal["corrected", "strict"] | None = None
    log_level: Literal["debug", "info", "warning", "error"] | None = None
    threads: Positive | None = None
    max_body_bytes: Positive | None = None
    max_pending: Positive | None = None
    max_batch_rows: Positive | None = None
    api_keys: str | None = None
    rate_limit: Annotated[float, msgspec.Meta(ge=0)] | None = None
    rate_burst: Positive | None = None
    tls_cert: str | None = None
    tls_key: str | None = None
    tls_client_ca: str | None = None
    access_log: str | None = None
    traces: str | None = None
    jobs_dir: str | None = None
    server: dict[str, str] = {}
    env: dict[str, str] = {}


class LocalSettings(ServingSettings, frozen=True, kw_only=True):
    """Settings of a deployment on this machine: those of serving, and these.

    Attributes:
        max_restarts: Deaths of one worker within a minute that are answered by a restart.
        worker_max_mib: Memory of one worker (and its children) beyond which it is replaced while
            it answers. Default: no limit.
    """

    max_restarts: Annotated[int, msgspec.Meta(ge=0, le=1000)] = 5
    worker_max_mib: Positive | None = None


_PASSED = (
    *("drain_timeout_s", "azureml_compat", "pin", "threads", "max_body_bytes", "max_pending"),
    *("scoring_timeout_ms", "max_batch_rows", "api_keys", "rate_limit", "rate_burst"),
    *("tls_cert", "tls_key", "tls_client_ca", "access_log", "traces", "jobs_dir"),
)
_PATHS = (
    *("api_keys", "tls_cert", "tls_key", "tls_client_ca", "access_log", "jobs_dir"),
    *("metrics_dir", "oidc_jwks"),
)
_NO_PATHS = frozenset({"", "-", "off"})
_TLS = f"{PREFIX}TLS_CERT"


def parse(given: Mapping[str, Any]) -> LocalSettings:
    """The settings, with those of the server checked as the server does.

    Raises:
        UsageError: An unknown key, a value that is not valid, or a path that depends on where the
            command was run.
    """
    settings = parse_settings(LocalSettings, given)
    check_serving(settings)
    return settings


def check_serving(settings: ServingSettings) -> None:
    """Checks the settings of the server as the server does.

    Raises:
        UsageError: A value is not valid, or a path depends on where the command was run.
    """
    known = {field.name for field in fields(ServerSettings)}
    for name in settings.server:
        if name not in known:
            raise _unknown(name, known)
    variables = _server_variables(settings)
    for name in _PATHS:
        _check_path(name, variables.get(PREFIX + name.upper(), ""))
    for variable, text in variables.items():
        _check_alone(variable, text)
    tls = {name: text for name, text in settings.env.items() if name.startswith(f"{PREFIX}TLS_")}
    from_environment({**variables, **tls})


def _unknown(name: str, known: set[str]) -> UsageError:
    close = difflib.get_close_matches(name, sorted(known), 1)
    guess = f" Did you mean '{SERVER_PREFIX}{close[0]}'?" if close else ""
    return UsageError(
        f"The server has no setting {name!r}.{guess}",
        hint=f"Its settings are {', '.join(sorted(known))}.",
        where=SERVER_PREFIX + name,
    )


def _check_path(name: str, text: str) -> None:
    """Workers start elsewhere, and a revision may be started again from anywhere."""
    if text not in _NO_PATHS and "://" not in text and not Path(text).is_absolute():
        raise UsageError(
            f"The setting {name!r} is {text!r}, a path that depends on the present folder.",
            hint=f"Write {name}={Path(text).absolute()}.",
            where=name,
        )


def _check_alone(variable: str, text: str) -> None:
    if variable.startswith(f"{PREFIX}TLS_"):
        return  # they are only valid together
    try:
        from_environment({variable: text})
    except UsageError as error:
        name = variable.removeprefix(PREFIX).lower()
        raise UsageError(
            error.message.replace(variable, name), hint=error.hint, where=name
        ) from None


def memory_limit(settings: LocalSettings) -> int:
    """The MiB beyond which a worker is replaced, also where the server's own variable says it."""
    given = settings.env.get(f"{PREFIX}WORKER_MAX_MIB", "")
    if settings.worker_max_mib is None and given.isascii() and given.isdigit():
        return int(given)  # any other text the worker itself refuses
    return settings.worker_max_mib or 0


def speaks_tls(settings: ServingSettings) -> bool:
    """Whether the deployment is reached over https."""
    return bool(settings.env.get(_TLS, _server_variables(settings).get(_TLS, "")))


def worker_environment(
    settings: ServingSettings, base: Mapping[str, str], folder: Path | None = None
) -> dict[str, str]:
    """The environment of a worker: what was set, over the base, and the user's own last.

    Only what was set is passed: the server in the package may be of another release, which has
    its own defaults and refuses variables that it does not know.

    Args:
        settings: What was set.
        base: What every worker starts with.
        folder: The run folder, for what the deployment keeps there; None for nothing.
    """
    kept = {f"{PREFIX}JOBS_DIR": str(folder / JOBS_FOLDER)} if folder is not None else {}
    level = {"AZUREML_LOG_LEVEL": settings.log_level.upper()} if settings.log_level else {}
    return {**base, **kept, **_server_variables(settings), **level, **settings.env}


def _server_variables(settings: ServingSettings) -> dict[str, str]:
    values = {name: getattr(settings, name) for name in _PASSED} | settings.server
    return {PREFIX + name.upper(): f"{v}" for name, v in values.items() if v is not None}

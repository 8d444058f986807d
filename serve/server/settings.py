"""What a server may be told, in one frozen value: flag over environment over default.

Every setting has a finite default, and its environment variable is `FIELDPOST_SERVER_` and its name
in upper case. A variable with that prefix that is no setting is an error: a limit with a typo in
its name protects nobody.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from scoring.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

PREFIX = "FIELDPOST_SERVER_"
_MAX_PORT = 65_535
_MAY_BE_ZERO = frozenset(
    {
        *("port", "drain_idle_s", "inline_ms", "scoring_timeout_ms"),
        *("payload_ratio", "rate_limit", "trace_ratio", "worker_max_mib"),
    }
)
_CHOICES = {
    "azureml_compat": ("corrected", "strict"),
    "inputs": ("on", "off"),
    "metrics": ("on", "off"),
    "pin": ("auto", "off"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """The settings of one server process (`_s` seconds, `_ms` milliseconds, `_bytes` bytes).

    Attributes:
        host: The address to listen on; loopback unless told otherwise.
        port: 0 for a free one.
        workers: How many processes answer.
        threads: How many threads run a model that may run on several at once.
        backlog: Connections that wait to be accepted.
        max_connections: Open connections of one worker; more are told to come back.
        max_target_bytes: The longest request target (path and query).
        max_headers: The most header fields of one request.
        max_header_bytes: The most bytes of one request's head.
        max_body_bytes: The longest body, as sent and after decompression.
        max_depth: How deep JSON may be nested.
        max_pending: Requests that wait for the model or script; more are told to come back.
        header_timeout_s: From the first byte of a request (or the connect) to the end of its head.
        body_timeout_s: From the end of the head to the end of the body.
        keep_alive_timeout_s: How long a connection may lie idle between requests.
        write_timeout_s: How long a client may take nothing of an answer that waits for it.
        drain_idle_s: How long a drain leaves idle connections open for their next request.
        drain_timeout_s: The longest drain; what is still running then is cut off.
        inline_ms: Up to this mean time the event loop runs the model itself.
        scoring_timeout_ms: For one answer of a script; 0 leaves it to `SCORING_TIMEOUT_MS` and its
            default of an hour.
        script_concurrency: How many requests a script with `async def run` answers at once.
        azureml_compat: `corrected`, or `strict` for every answer of the original Azure ML server.
        max_batch_rows: The most rows of one run of a model whose batch dimension is free: requests
            share runs up to it, larger requests take several; 1 for no batches.
        server_name: What the Open Inference Protocol's metadata says.
        api_keys: A file of hashed API keys; empty for none.
        oidc_issuer: The issuer whose bearer tokens are taken; empty for none.
        oidc_audience: What the tokens have to be for.
        oidc_jwks: A URL or file of the issuer's keys; empty to ask the issuer where they are.
        rate_limit: Requests per second of one key (or one address, where there are no keys); 0 for
            no limit.
        rate_burst: Requests that may come at once.
        tls_cert: A PEM file of the certificate and its chain; empty for no TLS.
        tls_key: The PEM file of its key.
        tls_client_ca: A PEM file of the authorities of clients' certificates; with it, every client
            needs one.
        metrics: Whether `/metrics` answers: `on` or `off`.
        metrics_dir: Where the workers of one server share their counters; empty for one worker.
        access_log: `off`, `-` for standard error, or a file.
        traces: The OTLP endpoint to which spans go; empty for none.
        trace_ratio: The part of requests that begin a trace of their own (0 to 1).
        inputs: Whether inputs of models are looked at, for `/inputs`: `on` or `off`.
        payload_ratio: The part of the looks of which a row is kept whole, inputs and outputs, until
            somebody fetches it (0 to 1).
        worker_max_mib: Resident memory beyond which a worker is replaced; 0 for no limit.
        pin: `auto`: workers share the cores out among themselves; or `off`.
        jobs_dir: Where asynchronous jobs are kept; empty for a folder of the user's state.
        job_concurrency: How many of them run at once in one worker.
        job_ttl_s: How long the result of a job is kept.
    """

    host: str = "127.0.0.1"
    port: int = 5001
    workers: int = 1
    threads: int = 2
    backlog: int = 2048
    max_connections: int = 4096
    max_target_bytes: int = 8192
    max_headers: int = 100
    max_header_bytes: int = 32_768
    max_body_bytes: int = 64 << 20
    max_depth: int = 64
    max_pending: int = 1024
    header_timeout_s: float = 10.0
    body_timeout_s: float = 60.0
    keep_alive_timeout_s: float = 75.0
    write_timeout_s: float = 60.0
    drain_idle_s: float = 2.0
    drain_timeout_s: float = 25.0
    inline_ms: float = 2.0
    scoring_timeout_ms: int = 0
    script_concurrency: int = 100
    azureml_compat: str = "corrected"
    max_batch_rows: int = 1024
    server_name: str = "fieldpost"
    api_keys: str = ""
    oidc_issuer: str = ""
    oidc_audience: str = ""
    oidc_jwks: str = ""
    rate_limit: float = 0.0
    rate_burst: int = 20
    tls_cert: str = ""
    tls_key: str = ""
    tls_client_ca: str = ""
    metrics: str = "on"
    metrics_dir: str = ""
    access_log: str = "off"
    traces: str = ""
    trace_ratio: float = 0.0
    inputs: str = "off"
    payload_ratio: float = 0.0
    worker_max_mib: int = 0
    pin: str = "auto"
    jobs_dir: str = ""
    job_concurrency: int = 1
    job_ttl_s: float = 86_400.0

    def __post_init__(self) -> None:
        if not self.host:
            raise UsageError("The host is empty.", hint="Give an address such as 127.0.0.1.")
        if not 0 <= self.port <= _MAX_PORT:
            raise UsageError(f"Port {self.port} is not between 0 and {_MAX_PORT}.", where="port")
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise UsageError(
                    f"{name} is {getattr(self, name)!r}; it can be {' or '.join(choices)}.",
                    where=name,
                )
        if self.trace_ratio > 1:
            raise UsageError("trace_ratio is over 1.", hint="0.01 traces 1 %.", where="trace_ratio")
        if self.payload_ratio > 1:
            raise UsageError("payload_ratio is over 1.", where="payload_ratio")
        if bool(self.tls_cert) != bool(self.tls_key):
            raise UsageError(
                "TLS needs both tls_cert and tls_key.", hint="Give both files.", where="tls_cert"
            )
        for name, value in self.items():
            _require_positive(name, value)

    @property
    def body_digits(self) -> int:
        """How many digits the longest allowed length of a body has."""
        return len(str(self.max_body_bytes))

    def items(self) -> list[tuple[str, Any]]:
        """Every setting with its value."""
        return [(field.name, getattr(self, field.name)) for field in fields(self)]

    def to_environment(self) -> dict[str, str]:
        """The variables that give another process these settings."""
        return {PREFIX + name.upper(): str(value) for name, value in self.items()}


def _require_positive(name: str, value: object) -> None:
    """Numbers are finite and positive (a port may be 0, and so may the grace of a drain)."""
    if name in _MAY_BE_ZERO:
        lowest: float = 0
    elif isinstance(value, int):
        lowest = 1
    else:
        lowest = 0.001
    if isinstance(value, int | float) and not lowest <= value < float("inf"):
        raise UsageError(
            f"{name} is {value}; it has to be finite and at least {lowest:g}.", where=name
        )


def from_environment(
    environment: Mapping[str, str] | None = None, **flags: str | float | None
) -> ServerSettings:
    """The settings from flags (None where a flag is not given), the environment and the defaults.

    Raises:
        UsageError: A variable is unknown, or a value does not have the type or range of its
            setting.
    """
    environment = os.environ if environment is None else environment
    kinds = {field.name: type(field.default) for field in fields(ServerSettings)}
    values: dict[str, Any] = {}
    for key, text in environment.items():
        if key.startswith(PREFIX):
            name = key.removeprefix(PREFIX).lower()
            values[name] = _parse(name, text, kinds, where=key)
    for name, flag in flags.items():
        if flag is not None:
            values[name] = _parse(name, str(flag), kinds, where=f"--{name.replace('_', '-')}")
    return ServerSettings(**values)


def _parse(name: str, text: str, kinds: Mapping[str, type], where: str) -> Any:
    kind = kinds.get(name)
    if kind is None:
        raise UsageError(
            f"{where} is not a setting of the server.",
            hint=f"The settings are {', '.join(kinds)}.",
            where=where,
        )
    try:
        return kind(text)
    except ValueError:
        wanted = {int: "a whole number", float: "a number"}[kind]
        raise UsageError(f"{where} is {text!r}; it has to be {wanted}.", where=where) from None

"""The settings of the small runtime: those of the server that it understands."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Final

from scoring.errors import UsageError

PREFIX: Final = "FIELDPOST_SERVER_"

_MAY_BE_ZERO: Final = (f"{PREFIX}PAYLOAD_RATIO", f"{PREFIX}DRAIN_IDLE_S")
_ALREADY_SO: Final = {"workers": "1", "metrics": "on", "access_log": "off"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """As the server has them (serve/server/settings.py), with the same defaults.

    Attributes:
        host: The address to listen on, where no supervisor gives a socket.
        port: See `host`.
        max_connections: Open connections; more are told to come back.
        max_headers: The most header fields of one request.
        max_header_bytes: The most bytes of one request's head.
        max_body_bytes: The longest body, as sent and after decompression.
        max_depth: How deep JSON may be nested.
        header_timeout_s: From the first byte of a request (or the connect) to the end of its head.
        body_timeout_s: From the end of the head to the end of the body.
        keep_alive_timeout_s: How long a connection may lie idle between requests.
        write_timeout_s: How long a client may take nothing of an answer that waits for it.
        drain_idle_s: How long a drain leaves idle connections open for their next request.
        drain_timeout_s: The longest drain; what is still running then is cut off.
        inputs: Whether rows are looked at, for `/inputs`: `on` or `off`.
        payload_ratio: The part of the looks of which a row is kept whole (0 to 1).
    """

    host: str = "127.0.0.1"
    port: int = 5001
    max_connections: int = 512
    max_headers: int = 100
    max_header_bytes: int = 32_768
    max_body_bytes: int = 64 << 20
    max_depth: int = 64
    header_timeout_s: float = 10.0
    body_timeout_s: float = 60.0
    keep_alive_timeout_s: float = 75.0
    write_timeout_s: float = 60.0
    drain_idle_s: float = 2.0
    drain_timeout_s: float = 25.0
    inputs: str = "off"
    payload_ratio: float = 0.0


def from_environment(environment: Mapping[str, str]) -> Settings:
    """Reads `FIELDPOST_SERVER_…`.

    Raises:
        UsageError: One is no setting of this runtime, or has not its type. What guards a server
            (keys, TLS, limits of rate) must not be lost without a word.
    """
    kinds = {field.name: type(field.default) for field in fields(Settings)}
    values: dict[str, Any] = {}
    for variable, text in environment.items():
        name = variable.removeprefix(PREFIX).lower()
        if variable == name or not variable.startswith(PREFIX) or _ALREADY_SO.get(name) == text:
            continue
        values[name] = _parse(variable, text, kinds.get(name))
    return Settings(**values)


def _parse(variable: str, text: str, kind: type | None) -> int | float | str:
    if kind is None:
        raise UsageError(
            f"{variable} is no setting of the small runtime for circuits.",
            hint='Leave it out, or run the package as a process (run="process").',
            where=variable,
        )
    if kind is str:
        if variable == f"{PREFIX}HOST":
            return text
        if text not in {"on", "off"}:
            raise UsageError(f"{variable} is {text!r}; it can be on or off.", where=variable)
        return text
    return _number(variable, text, kind)


def _number(variable: str, text: str, kind: type) -> int | float:
    least = 0.0 if variable in _MAY_BE_ZERO else 1e-9
    most = 1.0 if variable.endswith("_RATIO") else sys.float_info.max
    try:
        value = int(text) if kind is int else float(text)
    except ValueError:
        value = -1
    if not least <= value <= most:
        raise UsageError(f"{variable} is {text!r}, which it cannot be.", where=variable)
    return value

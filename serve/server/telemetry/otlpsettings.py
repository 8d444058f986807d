"""How a collector is reached: the endpoint, and OpenTelemetry's own environment variables. Pure.

Of each variable there is one for traces (`OTEL_EXPORTER_OTLP_TRACES_HEADERS`), which goes before
the one for everything (`OTEL_EXPORTER_OTLP_HEADERS`). As OpenTelemetry wants it, what is not valid
in them is warned of and left out; its value may be a secret, and is not shown.
"""

from __future__ import annotations

import logging
import math
import re
from base64 import b64encode
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from urllib.parse import SplitResult, quote, unquote, urlsplit

from scoring import __version__
from scoring.errors import UsageError

logger = logging.getLogger(__name__)

SIGNAL_PATH = "/v1/traces"
TIMEOUT_S = 10.0
LONGEST_TIMEOUT_S = 60.0
COMPRESSIONS = ("none", "gzip", "deflate")

_HEADERS_HERE = frozenset({"content-encoding", "content-length", "content-type", "connection"})
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_USERINFO = re.compile(r"//[^/?#]*@")
_PATH_CHARACTERS = "/%:@!$&'()*+,;=~?"


@dataclass(frozen=True, slots=True)
class Target:
    """Where spans go, and how.

    Attributes:
        shown: The URL without anything in it that may be a secret.
        scheme: `http` or `https`.
        host: A name or an address.
        port: Of the collector.
        authority: Both, as they stand in a URL.
        path: With the query.
        headers: Of each request.
        certificate: A file with the authorities that the collector's certificate may be from;
            empty for the system's.
        client_certificate: A file; empty for none.
        client_key: Its key; empty where it is in the same file.
        compression: One of `COMPRESSIONS`.
        timeout_s: For a batch, with all attempts.
    """

    shown: str
    scheme: str
    host: str
    port: int
    authority: str
    path: str = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    certificate: str = ""
    client_certificate: str = ""
    client_key: str = ""
    compression: str = "none"
    timeout_s: float = TIMEOUT_S

    @classmethod
    def make(cls, endpoint: str, environment: Mapping[str, str]) -> Target:
        """From the endpoint that is set, and the variables.

        Args:
            endpoint: Of OTLP over HTTP; without a path, `/v1/traces` is added.
            environment: Of the process.

        Raises:
            UsageError: The endpoint is no URL.
        """
        parts = _split(endpoint)
        path = quote(SIGNAL_PATH if parts.path in {"", "/"} else parts.path, safe=_PATH_CHARACTERS)
        query = quote(parts.query, safe=_PATH_CHARACTERS)
        host = parts.hostname or ""
        port = parts.port or (443 if parts.scheme == "https" else 80)
        authority = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        return cls(
            shown=f"{parts.scheme}://{authority}{path}",
            scheme=parts.scheme,
            host=host,
            port=port,
            authority=authority,
            path=f"{path}?{query}" if query else path,
            headers={**_headers(environment), **basic(parts)},
            certificate=_setting(environment, "CERTIFICATE"),
            client_certificate=_setting(environment, "CLIENT_CERTIFICATE"),
            client_key=_setting(environment, "CLIENT_KEY"),
            compression=_compression(environment),
            timeout_s=_timeout(environment),
        )


def resource_attributes(environment: Mapping[str, str], service: str) -> dict[str, str]:
    """Who makes the spans, from `OTEL_RESOURCE_ATTRIBUTES` and `OTEL_SERVICE_NAME`.

    Args:
        environment: Of the process.
        service: The name of the service, where these do not say it.
    """
    name = "OTEL_RESOURCE_ATTRIBUTES"
    given = {key: unquote(value) for key, value in _pairs(name, environment.get(name, ""))}
    service = environment.get("OTEL_SERVICE_NAME", "") or given.get("service.name") or service
    known = {"language": "python", "name": "fieldpost", "version": __version__}
    own = {f"telemetry.sdk.{key}": value for key, value in known.items()}
    return {**own, **given, "service.name": service}


def basic(parts: SplitResult, header: str = "authorization") -> dict[str, str]:
    """The header for the name and the password in a URL, where there are any."""
    if not parts.username and not parts.password:
        return {}
    pair = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}"
    return {header: f"Basic {b64encode(pair.encode()).decode()}"}


def _split(endpoint: str) -> SplitResult:
    try:
        parts = urlsplit(endpoint)
        valid = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid:
        shown = _USERINFO.sub("//", endpoint).partition("?")[0]
        raise UsageError(
            f"The endpoint of traces {shown!r} is no URL.",
            hint="Give one of OTLP over HTTP, such as http://collector:4318.",
            where="traces",
        )
    return parts


def _setting(environment: Mapping[str, str], name: str) -> str:
    return _named(environment, name)[1]


def _named(environment: Mapping[str, str], name: str) -> tuple[str, str]:
    """The variable that counts, and its value."""
    for variable in (f"OTEL_EXPORTER_OTLP_TRACES_{name}", f"OTEL_EXPORTER_OTLP_{name}"):
        value = environment.get(variable, "").strip()
        if value:
            return variable, value
    return "", ""


def _headers(environment: Mapping[str, str]) -> dict[str, str]:
    variable, text = _named(environment, "HEADERS")
    headers = {"user-agent": f"fieldpost/{__version__}"}
    for raw_name, raw_value in _pairs(variable, text):
        name, value = unquote(raw_name).strip().lower(), unquote(raw_value).strip()
        if not _HEADER_NAME.match(name) or _CONTROL.search(value):
            logger.warning("%s has a header that is not valid; it is left out", variable)
        elif name not in _HEADERS_HERE:
            headers[name] = value
    return headers


def _pairs(variable: str, text: str) -> Iterator[tuple[str, str]]:
    """The members of a list as W3C's Baggage has it: `a=1,b=2`."""
    for member in text.split(","):
        name, mark, value = member.partition("=")
        if mark and name.strip():
            yield name.strip(), value.strip()
        elif member.strip():
            logger.warning("%s has a member that is not NAME=VALUE; it is left out", variable)


def _compression(environment: Mapping[str, str]) -> str:
    variable, value = _named(environment, "COMPRESSION")
    if value.lower() in COMPRESSIONS:
        return value.lower()
    if value:
        logger.warning("%s is none of %s; nothing is compressed", variable, ", ".join(COMPRESSIONS))
    return "none"


def _timeout(environment: Mapping[str, str]) -> float:
    variable, value = _named(environment, "TIMEOUT")
    if not value:
        return TIMEOUT_S
    try:
        seconds = float(value)
    except ValueError:
        seconds = math.nan
    if seconds > 0:
        return min(seconds, LONGEST_TIMEOUT_S)
    logger.warning("%s is no number of seconds; it is %g", variable, TIMEOUT_S)
    return TIMEOUT_S

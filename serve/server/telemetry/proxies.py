"""Which proxy leads to a host, by the variables that everyone knows: `http_proxy`, `no_proxy`."""

from __future__ import annotations

import contextlib
import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from serve.server.telemetry.otlpsettings import basic

_PORT = 80


@dataclass(frozen=True, slots=True)
class Proxy:
    """One that speaks HTTP.

    Attributes:
        host: Its name or address.
        port: Of it.
        headers: That it wants.
    """

    host: str
    port: int
    headers: Mapping[str, str] = field(repr=False)


def proxy_for(scheme: str, host: str) -> Proxy | None:
    """The proxy for requests to a host; None where there is none.

    Raises:
        OSError: It is of a kind that is not supported; nothing of the URL is shown.
    """
    if not any(name.lower().endswith("_proxy") for name in os.environ):
        return None
    from urllib import request  # noqa: PLC0415 - few have proxies

    known = request.getproxies_environment()
    url = known.get(scheme) or known.get("all")
    if not url or request.proxy_bypass(host) or _is_excepted(host, known.get("no", "")):
        return None
    parts = urlsplit(url if "://" in url else f"http://{url}")
    if parts.scheme != "http" or not parts.hostname:
        raise OSError(0, "its proxy is none of HTTP")
    headers = basic(parts, "proxy-authorization")
    return Proxy(parts.hostname, parts.port or _PORT, headers)


def _is_excepted(host: str, exceptions: str) -> bool:
    """Whether an address is in one of the networks that go past the proxy."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    for exception in exceptions.split(","):
        with contextlib.suppress(ValueError):
            if address in ipaddress.ip_network(exception.strip(), strict=False):
                return True
    return False

"""Which port of the engine's machine a deployment gets. Pure, but for the question what is free."""

from __future__ import annotations

import socket
from urllib.parse import urlsplit

_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - how such a port is reached


def free_port(host: str) -> int:
    """A port that is free on this machine now; on another one it very likely is."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        try:
            probe.bind((host, 0))
        except OSError:  # the host is an address of the engine's machine
            probe.bind(("", 0))
        return int(probe.getsockname()[1])


def port_of(url: str) -> int:
    """The port of a URL; 0 where there is none."""
    try:
        return urlsplit(url).port or 0
    except ValueError:
        return 0


def url_of(host: str, port: int, *, machine: str = "", tls: bool = False) -> str:
    """Where a published port is reached.

    Args:
        host: That it is published on.
        port: Its number.
        machine: The engine's, where that is another one.
        tls: The workers speak TLS.
    """
    shown = machine if machine and host in _EVERYWHERE else _EVERYWHERE.get(host, host)
    scheme = "https" if tls else "http"
    return f"{scheme}://[{shown}]:{port}" if ":" in shown else f"{scheme}://{shown}:{port}"

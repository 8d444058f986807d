"""The health check of a container: `python -I -S …/scoring/probe.py`, without a shell or curl.

It asks the server of its own container whether it is ready, by the settings in the environment, and
answers with its exit status. The standard library only, and little of it: engines run it every few
seconds.
"""

from __future__ import annotations

import os
import socket
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ssl

HEALTHY, UNHEALTHY = 0, 1

_TIMEOUT_S = 4.0
_HEAD_BYTES = 4096
_ANY = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1", "*": "127.0.0.1"}  # noqa: S104
_PREFIX = "FIELDPOST_SERVER_"
_REQUEST = b"GET /health/ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


def main() -> int:
    """Prints what the server says of itself; 0 where it is ready."""
    host = _setting("HOST", "127.0.0.1")
    port = _setting("PORT", "5001")
    try:
        status = ask(_ANY.get(host, host), int(port), tls=bool(_setting("TLS_CERT", "")))
    except (OSError, ValueError) as error:
        return _tell(f"The server does not answer at port {port}: {error}", UNHEALTHY)
    # A server that wants to see certificates shows with its handshake that it has loaded.
    if status == "200" or (not status and _setting("TLS_CLIENT_CA", "")):
        return _tell("ready", HEALTHY)
    return _tell(f"not ready: {status or 'no answer'}", UNHEALTHY)


def ask(host: str, port: int, *, tls: bool = False, timeout_s: float = _TIMEOUT_S) -> str:
    """The status of the server's readiness, `200`; empty where it hangs up after a TLS handshake.

    Raises:
        OSError: Nothing answers in time.
    """
    with socket.create_connection((host, port), timeout_s) as plain:
        if not tls:
            return _status(plain)
        with _context().wrap_socket(plain) as wrapped:
            try:
                return _status(wrapped)
            except OSError:  # it wants a certificate
                return ""


def _status(connection: socket.socket) -> str:
    connection.sendall(_REQUEST)
    head = b""
    while b"\r\n" not in head and len(head) < _HEAD_BYTES:
        piece = connection.recv(_HEAD_BYTES)
        if not piece:
            break
        head += piece
    line = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ")
    return line[1] if len(line) > 1 and line[0].startswith("HTTP/") else ""


def _context() -> ssl.SSLContext:
    """It is the same container, and the certificate has the name of the outside."""
    import ssl  # noqa: PLC0415 - most servers have no TLS of their own

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _setting(name: str, default: str) -> str:
    return os.environ.get(_PREFIX + name, default)


def _tell(sentence: str, status: int) -> int:
    print(sentence)  # noqa: T201 - engines keep it beside the status
    return status


if __name__ == "__main__":
    sys.exit(main())

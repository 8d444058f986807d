"""An HTTP proxy for tests: tunnels by CONNECT, and plain requests passed on.

It knows hosts that no name server knows: what arrives at them has come through the proxy.
"""

from __future__ import annotations

import base64
import contextlib
import select
import socket
import threading
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType

_WAIT_S = 10


class ConnectProxy:
    """Listens on a port of the loopback; a context manager.

    Args:
        hosts: `NAME:PORT` to a port of this machine.
        login: `USER:PASSWORD` that it asks for; empty for none.

    Attributes:
        asked: The first lines of the requests.
    """

    def __init__(self, hosts: dict[str, int], login: str = "") -> None:
        self.asked: list[str] = []
        self._hosts = hosts
        self._wanted = base64.b64encode(login.encode()).decode() if login else ""
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        while not self._ended.is_set():
            connection, _ = self._listener.accept()
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        client.settimeout(_WAIT_S)
        with client, contextlib.suppress(OSError):  # either side may break off
            head = _head(client)
            if not head:
                return
            line, _, rest = head.partition("\r\n")
            self.asked.append(line)
            method, target, _ = line.split(" ")
            if self._wanted and f"basic {self._wanted}".lower() not in rest.lower():
                answer = "HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n"
                client.sendall(f"{answer}Connection: close\r\n\r\n".encode())
                return
            place = target if method == "CONNECT" else target.split("/")[2]
            if place not in self._hosts:
                client.sendall(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")
                return
            with socket.create_connection(("127.0.0.1", self._hosts[place]), _WAIT_S) as server:
                if method == "CONNECT":
                    client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                else:  # one request, then the connection ends
                    path = target.split("/", 3)[3]
                    rest = rest.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n")
                    server.sendall(f"{method} /{path} HTTP/1.1\r\n{rest}".encode())
                _pass_on(client, server)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        socket.create_connection(("127.0.0.1", self.port)).close()
        self._thread.join(_WAIT_S)
        self._listener.close()


def _head(client: socket.socket) -> str:
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        piece = client.recv(1)
        if not piece:
            return ""
        head += piece
    return head.decode("latin-1")


def _pass_on(one: socket.socket, other: socket.socket) -> None:
    """Both ways, until one side ends."""
    while True:
        ready, _, _ = select.select([one, other], [], [], _WAIT_S)
        for source in ready:
            piece = source.recv(65536)
            if not piece:
                return
            (other if source is one else one).sendall(piece)
        if not ready:
            return

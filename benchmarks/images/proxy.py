"""Counts what is sent to a server, on the wire and not by anybody's own account."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

_PIECE_BYTES = 1 << 16


class CountingProxy:
    """Passes connections on to a port of this machine.

    Attributes:
        port: Where it listens.
        sent: Bytes that clients have sent, headers and all.
        received: Bytes that they were sent, likewise.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.sent = self.received = 0
        self._lock = threading.Lock()

    def serve(self) -> None:
        """Until the listener is closed."""
        with suppress(OSError):
            while True:
                client = self._listener.accept()[0]
                threading.Thread(target=self._connect, args=(client,), daemon=True).start()

    def close(self) -> None:
        """Takes no more connections."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _connect(self, client: socket.socket) -> None:
        """One connection, both ways, until both sides have said all."""
        with client, socket.create_connection(("127.0.0.1", self._target)) as server:
            args = (server, client, self._count_back)
            back = threading.Thread(target=_pass, args=args, daemon=True)
            back.start()
            _pass(client, server, self._count)
            back.join()

    def _count(self, size: int) -> None:
        with self._lock:
            self.sent += size

    def _count_back(self, size: int) -> None:
        with self._lock:
            self.received += size


def _pass(
    source: socket.socket, sink: socket.socket, count: Callable[[int], None] = lambda _size: None
) -> None:
    with suppress(OSError):
        while piece := source.recv(_PIECE_BYTES):
            count(len(piece))
            sink.sendall(piece)
        sink.shutdown(socket.SHUT_WR)


@contextmanager
def counting(target: int) -> Iterator[CountingProxy]:
    """A proxy that passes connections on until the end of the block."""
    proxy = CountingProxy(target)
    thread = threading.Thread(target=proxy.serve, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.close()
        thread.join()

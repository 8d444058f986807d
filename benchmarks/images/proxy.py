"""Counts what is sent to a server, on the wire and not by anybody's own account."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_PIECE_BYTES = 1 << 16


class CountingProxy:
    """Passes connections on to a port of this machine.

    Attributes:
        port: Where it listens.
        sent: Bytes that clients have sent, headers and all.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.sent = 0
        self._lock = threading.Lock()

    def serve(self) -> None:
        """Until the listener is closed."""
        with suppress(OSError):
            while True:
                client = self._listener.accept()[0]
                server = socket.create_connection(("127.0.0.1", self._target))
                for source, sink, counts in ((client, server, True), (server, client, False)):
                    arguments = (source, sink, counts)
                    threading.Thread(target=self._pass, args=arguments, daemon=True).start()

    def close(self) -> None:
        """Takes no more connections."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _pass(self, source: socket.socket, sink: socket.socket, counts: bool) -> None:
        with suppress(OSError):
            while piece := source.recv(_PIECE_BYTES):
                if counts:
                    with self._lock:
                        self.sent += len(piece)
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

"""Takes the traces of the server that is measured, as a collector would, and counts them."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    received = 0


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", "0")))
        self.server.received += 1
        self.send_response(200)
        self.send_header("content-type", "application/x-protobuf")
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Says nothing."""


@dataclass
class Sink:
    """An OTLP receiver in this process.

    Attributes:
        url: Where spans are posted.
    """

    url: str
    _server: _Server
    _thread: threading.Thread = field(repr=False)

    @classmethod
    def start(cls) -> Sink:
        server = _Server(("127.0.0.1", 0), _Handler)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        return cls(f"http://127.0.0.1:{server.server_port}/v1/traces", server, thread)

    @property
    def received(self) -> int:
        """How many batches came."""
        return self._server.received

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)

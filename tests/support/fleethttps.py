"""A controller's HTTPS, reduced to what enrolment needs: `Endpoint` behind the library's server."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from edge.security.authority import Authority
from edge.security.endpoint import Endpoint


def private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def server_context(authority: Authority, folder: Path, now: float, host: str) -> ssl.SSLContext:
    key = ec.generate_private_key(ec.SECP256R1())
    made = authority.issue_server(key.public_key(), [host], now)
    file = folder / "server.pem"
    file.write_bytes(private_pem(key) + made.public_bytes(serialization.Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return context


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        pass  # a client that breaks off is what some tests are about


@contextmanager
def serving(
    endpoint: Endpoint, authority: Authority, folder: Path, *, now: float, host: str = "localhost"
) -> Iterator[str]:
    """The URL of a server of this endpoint."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer("GET")

        def do_POST(self) -> None:
            self._answer("POST")

        def _answer(self, method: str) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            reply = endpoint.handle(method, self.path, body)
            self.send_response(reply.status if reply else 404)
            content = reply.body if reply else b""
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    server = _Server(("127.0.0.1", 0), Handler)
    server.socket = server_context(authority, folder, now, host).wrap_socket(
        server.socket, server_side=True
    )
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"https://localhost:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()

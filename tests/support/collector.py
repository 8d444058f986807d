"""A collector of traces: a real server that takes OTLP over HTTP, and can be told to fail."""

from __future__ import annotations

import contextlib
import gzip
import threading
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Self

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable
    from email.message import Message

    from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope
    from opentelemetry.proto.trace.v1.trace_pb2 import Span

_UNPACK: dict[str | None, Callable[[bytes], bytes]] = {
    None: bytes,
    "gzip": gzip.decompress,
    "deflate": zlib.decompress,
}


class Collector:
    """Listens on a free port while it is entered.

    Args:
        tls: Of the server's certificate; None for plain HTTP.

    Attributes:
        status: What it answers.
        statuses: What it answers to the next requests, before `status` counts again.
        answer: The body of what it answers when it has taken spans.
        answered: The headers of what it answers.
        keeps: Connections stay open.
        spans: Those that it has taken.
        scopes: Of these spans.
        services: The services that they came from.
        resource: The attributes of the last one.
        paths: Of the requests.
        headers: Of the requests.
        connections: How many there have been.
    """

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.status = 200
        self.statuses: list[int] = []
        self.answer = ExportTraceServiceResponse().SerializeToString()
        self.answered = {"content-type": "application/x-protobuf"}
        self.keeps = True
        self.spans: list[Span] = []
        self.scopes: list[InstrumentationScope] = []
        self.services: set[str] = set()
        self.resource: dict[str, str | int] = {}
        self.paths: list[str] = []
        self.headers: list[Message] = []
        self.connections = 0
        self._server = _Server(("127.0.0.1", 0), _handler(self))
        if tls is not None:
            self._server.socket = tls.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        self.port = self._server.server_port
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"

    def take(self, body: bytes) -> None:
        """Reads what a server sends."""
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            self.resource = pairs(resource.resource.attributes)
            self.services.add(str(self.resource["service.name"]))
            for scope in resource.scope_spans:
                self.scopes.append(scope.scope)
                self.spans.extend(scope.spans)

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, *_: Any) -> None:
        """Keeps standard error clean."""


def _handler(collector: Collector) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            super().setup()
            collector.connections += 1

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            collector.paths.append(self.path)
            collector.headers.append(self.headers)
            status = collector.statuses.pop(0) if collector.statuses else collector.status
            if status == 200:
                collector.take(_UNPACK[self.headers["content-encoding"]](body))
            self.send_response(status)
            for name, value in collector.answered.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(collector.answer)))
            self.end_headers()
            self.wfile.write(collector.answer)
            self.close_connection = not collector.keeps

        def handle(self) -> None:
            with contextlib.suppress(OSError):
                super().handle()

        def log_message(self, *_: Any) -> None:
            """Keeps standard error clean."""

    return Handler


def attributes(span: Span) -> dict[str, str | int]:
    """The attributes of a span as plain values."""
    return pairs(span.attributes)


def pairs(known: Any) -> dict[str, str | int]:
    """Attributes as plain values."""
    return {
        pair.key: pair.value.string_value
        if pair.value.HasField("string_value")
        else pair.value.int_value
        for pair in known
    }

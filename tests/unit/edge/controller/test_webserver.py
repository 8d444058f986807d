"""The server for devices: parts of files, limits, and those who speak no HTTP."""

from __future__ import annotations

import gzip
import http.client
import io
import os
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edge.controller.blobroutes import whole_or_part
from edge.controller.deltas import DeltaStore
from edge.controller.webserver import MOST_BODY, MOST_HEAD, Answer, Request, WebServer
from scoring import digest as digests
from scoring.errors import NotFoundError, UnreachableError
from tests.support.certificates import Authority

CONTENT = os.urandom(3_000_000)
DIGEST = digests.of_bytes(CONTENT)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[WebServer]:
    file = tmp_path / "file"
    file.write_bytes(CONTENT)

    def route(request: Request) -> Answer | None:
        match request.path:
            case "/file":
                return whole_or_part(request, file, DIGEST)
            case "/echo":
                return Answer(200, request.method.encode() + request.body)
            case "/defect":
                raise RuntimeError("a defect")
            case "/broken":
                raise NotFoundError("Something is not there.")
        return None

    made = WebServer([route])
    made.start()
    yield made
    made.close()


def ask(
    server: WebServer, path: str, method: str = "GET", body: bytes = b"", **headers: str
) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    try:
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body, names)
        answer = connection.getresponse()
        return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("asked", "begin", "end"),
    [
        *(("bytes=0-0", 0, 1), ("bytes=5-9", 5, 10), ("bytes=2999999-", 2999999, 3000000)),
        *(("bytes=-7", 2999993, 3000000), ("bytes=-9999999", 0, 3000000)),
        *(("bytes=10-99999999", 10, 3000000), ("bytes=1000000-2000000", 1000000, 2000001)),
    ],
)
def test_parts(server: WebServer, asked: str, begin: int, end: int) -> None:
    status, headers, body = ask(server, "/file", Range=asked)
    assert (status, body) == (206, CONTENT[begin:end])
    assert headers["content-range"] == f"bytes {begin}-{end - 1}/{len(CONTENT)}"
    assert headers["etag"] == f'"{DIGEST}"'


@pytest.mark.parametrize("asked", ["bytes=3000000-", "bytes=9-5", "bytes=-0"])
def test_parts_that_there_are_not(server: WebServer, asked: str) -> None:
    status, headers, body = ask(server, "/file", Range=asked)
    assert (status, headers["content-range"], body) == (416, f"bytes */{len(CONTENT)}", b"")


@pytest.mark.parametrize("asked", ["bytes=0-1,5-6", "lines=1-2", "bytes=-", "bytes=a-b", ""])
def test_what_is_no_range_is_all(server: WebServer, asked: str) -> None:
    assert ask(server, "/file", Range=asked)[::2] == (200, CONTENT)


def test_conditions(server: WebServer) -> None:
    tag = f'"{DIGEST}"'
    assert ask(server, "/file", If_None_Match=tag)[0] == 304
    assert ask(server, "/file", Range="bytes=0-1", If_Range=tag)[0] == 206
    assert ask(server, "/file", Range="bytes=0-1", If_Range='"other"')[0] == 200
    status, headers, body = ask(server, "/file", "HEAD")
    assert (status, headers["content-length"], body) == (200, str(len(CONTENT)), b"")


def test_bodies_and_their_limit(server: WebServer) -> None:
    assert ask(server, "/echo", "POST", b"x" * MOST_BODY)[2] == b"POST" + b"x" * MOST_BODY
    assert ask(server, "/echo", "POST", b"x" * (MOST_BODY + 1))[0] == 413


def test_defects_stay_inside(server: WebServer) -> None:
    assert [ask(server, path)[0] for path in ("/none", "/defect", "/broken")] == [404, 500, 503]


def test_one_connection_many_requests(server: WebServer) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    for number in range(5):
        connection.request("POST", "/echo", str(number))
        assert connection.getresponse().read() == f"POST{number}".encode()
    connection.close()


@pytest.mark.parametrize(
    "data",
    [
        *(b"\x16\x03\x01\x02\x00\x01\xfc\x03\x03" + b"\0" * 99 + b"\r\n\r\n", b"GET\r\n\r\n"),
        *(
            b"GET / HTTP/1.1\r\nx: " + b"a" * (MOST_HEAD + 1),
            b"\r\n\r\n",
            b"PRI * HTTP/9.9\r\n\r\n",
        ),
        b"POST /echo HTTP/1.1\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello",
        b"POST /echo HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        b"POST /echo HTTP/1.1\r\ncontent-length: -5\r\n\r\nhello",
    ],
)
def test_those_who_speak_no_proper_http_are_let_go(server: WebServer, data: bytes) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as link:
        link.sendall(data)
        link.shutdown(socket.SHUT_WR)
        said = b""
        while piece := link.recv(65536):
            said += piece
    assert not said or said.startswith(b"HTTP/1.1 4")
    assert ask(server, "/echo")[0] == 200


def test_a_port_that_is_taken_is_named(server: WebServer) -> None:
    with pytest.raises(UnreachableError, match="cannot listen"):
        WebServer([], port=server.port).start()


class Layers:
    """Two layers and one that resembles neither."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        noise = os.urandom(400_000)
        self.old = self._put(noise)
        self.new = self._put(noise[:200_000] + b"changed" + noise[200_000:])
        self.other = self._put(os.urandom(400_000))

    def _put(self, data: bytes) -> str:
        packed = gzip.compress(data, 1)
        digest = digests.of_bytes(packed)
        (self._folder / digest).write_bytes(packed)
        return digest

    def has(self, digest: str) -> bool:
        return (self._folder / digest).exists()

    def path(self, digest: str) -> Path:
        if not self.has(digest):
            raise NotFoundError("It is not there.")
        return self._folder / digest

    def read_bytes(self, digest: str) -> bytes:
        return self.path(digest).read_bytes()


def test_deltas_are_made_once_and_lead_to_the_new_layer(tmp_path: Path) -> None:
    from edge.agent import delta
    from edge.agent.blobs import DeviceBlobs

    (tmp_path / "layers").mkdir()
    layers = Layers(tmp_path / "layers")
    store = DeltaStore(tmp_path / "deltas", layers)
    try:
        made = store.path(layers.old, layers.new)
        assert made is not None
        assert made.name == digests.of_bytes(made.read_bytes())
        assert made.stat().st_size < 10_000
        assert store.path(layers.old, layers.new) == made
        assert store.path(layers.old, layers.other) is None  # it would save nothing
        assert store.path(layers.old, "sha256:" + "0" * 64) is None
        blobs = DeviceBlobs(tmp_path / "device")
        raw = gzip.decompress(layers.read_bytes(layers.new))
        old = io.BytesIO(gzip.decompress(layers.read_bytes(layers.old)))
        with made.open("rb") as patch:
            delta.apply(patch, old, digests.of_bytes(raw), blobs)
        assert blobs.path(digests.of_bytes(raw)).read_bytes() == raw
    finally:
        store.close()


def test_deltas_go_when_there_are_too_many(tmp_path: Path) -> None:
    (tmp_path / "layers").mkdir()
    layers = Layers(tmp_path / "layers")
    store = DeltaStore(tmp_path / "deltas", layers, most_bytes=1)
    try:
        first = store.path(layers.old, layers.new)
        assert first is not None
        assert store.path(layers.new, layers.old) is not None
        assert not first.exists()
        assert store.path(layers.old, layers.new) is not None
    finally:
        store.close()


class WatchedContext(ssl.SSLContext):
    """Notes which thread changes it."""

    loaded_on: list[str]

    def load_cert_chain(self, *given: Any, **named: Any) -> None:
        self.loaded_on = [*getattr(self, "loaded_on", []), threading.current_thread().name]
        super().load_cert_chain(*given, **named)


def test_another_certificate_from_the_next_connection_on(tmp_path: Path) -> None:
    """Changed by the thread that shakes hands: OpenSSL frees what another one is reading."""
    authority = Authority()
    files = []
    for name in ("first", "second"):
        pair = authority.issue(tmp_path, name)
        files.append(tmp_path / f"{name}-both.pem")
        files[-1].write_bytes(b"".join(one.read_bytes() for one in pair))
    context = WatchedContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files[0])
    server = WebServer([lambda _: Answer(200)], tls=context)
    server.start()

    def shown() -> str:
        trusting = ssl.create_default_context(
            cafile=str(authority.write(tmp_path / "authority.pem"))
        )
        with (
            socket.create_connection(("127.0.0.1", server.port), 20) as plain,
            trusting.wrap_socket(plain, server_hostname="localhost") as tls,
        ):
            found: Any = tls.getpeercert()
            return str(found["subject"][0][0][1])

    try:
        assert shown() == "first"
        server.renew(files[1])
        assert shown() == "second"
        with pytest.raises(OSError, match="No such file"):
            server.renew(tmp_path / "none.pem")
        assert shown() == "second"
    finally:
        server.close()
    assert context.loaded_on == ["MainThread", "fleet-web", "fleet-web"]

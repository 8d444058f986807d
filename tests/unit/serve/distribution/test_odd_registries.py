"""Registries that do what is legal, and what few of them do."""

from __future__ import annotations

import base64
import json
import os
import socket
import ssl
import threading
from typing import TYPE_CHECKING

import pytest

from scoring import digest as digests
from serve.distribution.client import PULL, RegistryClient
from serve.distribution.pushing import push
from serve.distribution.reference import parse_reference
from tests.support.certificates import Authority
from tests.support.oci import SmallImage, make_image, make_store
from tests.support.tiny_registry import Action, Handler, TinyRegistry

if TYPE_CHECKING:
    from pathlib import Path

    from serve.distribution.options import Options

BASIC = "Basic " + base64.b64encode(b"ada:p w:\xc3\xa9").decode()


@pytest.fixture
def image(tmp_path: Path) -> SmallImage:
    return make_image(make_store(tmp_path / "store"), [os.urandom(3 << 20), b"small"])


def send(image: SmallImage, host: str, options: Options) -> None:
    push(image.root, image.content, parse_reference(f"{host}/a/b:1"), options=options)


def client_of(host: str, options: Options) -> RegistryClient:
    return RegistryClient(
        parse_reference(f"{host}/a/b"),
        actions=PULL,
        hosts=options.hosts,
        logins=options.logins,
        limits=options.limits,
    )


def status(number: int, **headers: str) -> Action:
    def answer(request: Handler) -> bool:
        request.body()
        request.answer(number, b"", {k.replace("_", "-"): v for k, v in headers.items()})
        return True

    return answer


def wants_password(request: Handler) -> bool:
    """Offers two ways to log in, each on a line of its own."""
    if request.headers.get("authorization") == BASIC:
        return False
    request.body()
    request.send_response(401)
    request.send_header("WWW-Authenticate", "Negotiate")
    request.send_header("WWW-Authenticate", 'Basic realm="a, b"')
    request.send_header("Content-Length", "0")
    request.end_headers()
    return True


def test_ways_to_log_in_on_lines_of_their_own(
    tiny: TinyRegistry, image: SmallImage, options: Options, tmp_path: Path
) -> None:
    folder = tmp_path / "home" / ".docker"
    folder.mkdir(parents=True)
    login = {"auths": {tiny.host: {"auth": BASIC.partition(" ")[2]}}}
    (folder / "config.json").write_text(json.dumps(login))
    for method in ("GET", "HEAD", "POST", "PUT", "PATCH"):
        tiny.on(method, "/v2/.+", wants_password, times=1000)
    send(image, tiny.host, options)
    assert set(tiny.blobs) >= {each.digest for each in image.layers}


def test_links_on_lines_of_their_own(tiny: TinyRegistry, options: Options) -> None:
    def first(request: Handler) -> bool:
        request.send_response(200)
        request.send_header("Link", '</help>; rel="help"')
        request.send_header("Link", '</v2/a/b/tags/list?last=a>; rel="next"')
        body = b'{"tags":["a"]}'
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)
        return True

    def second(request: Handler) -> bool:
        request.answer(200, b'{"tags":["b"]}')
        return True

    tiny.on("GET", "last=a", second)
    tiny.on("GET", "tags/list", first)
    with client_of(tiny.host, options) as client:
        assert client.tags() == ["a", "b"]


@pytest.mark.parametrize("number", [405, 501, 404, 400, 416])
def test_a_registry_that_takes_no_chunks_gets_blobs_in_one_piece(
    tiny: TinyRegistry, image: SmallImage, options: Options, number: int
) -> None:
    tiny.on("PATCH", "", status(number), times=1000)
    send(image, tiny.host, options)
    assert tiny.blobs[image.layers[0].digest] == image.store.read_bytes(image.layers[0].digest)
    assert len(tiny.asked("PATCH")) <= 2


def test_a_registry_that_takes_one_chunk_and_no_more(
    tiny: TinyRegistry, image: SmallImage, options: Options
) -> None:
    def only_the_first(request: Handler) -> bool:
        if request.headers["content-range"].startswith("0-"):
            return False
        return status(416)(request)

    tiny.on("PATCH", "", only_the_first, times=1000)
    send(image, tiny.host, options)
    assert tiny.blobs[image.layers[0].digest] == image.store.read_bytes(image.layers[0].digest)


@pytest.mark.parametrize("number", [307, 308])
def test_a_push_follows_what_keeps_its_method(
    tiny: TinyRegistry, image: SmallImage, options: Options, number: int
) -> None:
    """As a proxy sends requests on that cleans paths, or knows the nearest registry."""
    with TinyRegistry() as other:

        def moved(request: Handler) -> bool:
            request.body()
            request.answer(number, b"", {"location": other.url + request.path})
            return True

        for method in ("POST", "PUT", "PATCH", "GET", "HEAD"):
            tiny.on(method, "/v2/.+", moved, times=1000)
        send(image, tiny.host, options)
        assert ("a/b", "1") in other.manifests
        assert digests.of_bytes(other.blobs[image.layers[0].digest]) == image.layers[0].digest


def test_a_login_goes_along_to_a_port_that_is_written_out(options: Options) -> None:
    """`https://r.io:443/` is `https://r.io/`; another port is another host."""
    client = client_of("r.io", options)
    own = client.transport._is_own  # no port 443 can be had in a test
    assert own("https://r.io:443/v2/a/b/blobs/uploads/1")
    assert own("https://R.io/v2/")
    assert not own("https://r.io:444/v2/")
    assert not own("http://r.io:443/v2/")
    assert not own("https://r.io.evil/v2/")
    assert not own("https://r.io@evil/v2/")
    client.close()


def test_a_registry_that_sends_to_its_own_https_is_asked_there(
    options: Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One port for both, as with nginx's `error_page 497`: a login would not follow a redirect."""
    authority = Authority()
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.write(tmp_path / "ca.pem")))
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(*authority.issue(tmp_path, "server"))
    heads: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        host = f"127.0.0.1:{listener.getsockname()[1]}"

        def one(connection: socket.socket) -> None:
            if connection.recv(1, socket.MSG_PEEK) == b"\x16":
                with tls.wrap_socket(connection, server_side=True) as secure:
                    heads.append(secure.recv(4096))
                    body = b'{"tags":["a"]}'
                    head = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
                    secure.sendall(head % len(body) + body)
                return
            connection.recv(4096)
            moved = f"HTTP/1.1 302 Found\r\nLocation: https://{host}/v2/\r\nConnection: close"
            connection.sendall(f"{moved}\r\nContent-Length: 0\r\n\r\n".encode())
            connection.close()

        def run() -> None:
            for _ in range(3):  # over plain HTTP, then over TLS, then the question
                one(listener.accept()[0])

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        with client_of(host, options) as client:
            assert client.tags() == ["a"]
        thread.join(5)
    assert [head.split()[1] for head in heads] == [b"/v2/", b"/v2/a/b/tags/list"]

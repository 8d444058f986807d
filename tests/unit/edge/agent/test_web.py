"""Asking sources: logins, redirects, TLS with the device's certificate, connections used again."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.agent import web as w
from edge.agent.throttle import Stop, StoppedError
from edge.agent.web import PassingError, Web
from edge.protocol.messages import Source
from scoring.errors import RegistryDeniedError, RegistryError
from tests.support import certificates
from tests.support.blob_source import (
    QUICK,
    REPOSITORY,
    BlobSource,
    Made,
    digest_of,
    send,
)

BODY = b"body"
DIGEST = digest_of(BODY)
BLOB = Made(DIGEST, {DIGEST: BODY}, ())
PATH = f"blobs/{DIGEST}"


def ask(web: Web, source: Source, path: str = PATH) -> tuple[int, bytes | None]:
    with web.ask(source, path, stop=Stop()) as answer:
        return answer.status, answer.read_all(1000)


@pytest.fixture
def web() -> Iterator[Web]:
    made = Web(limits=QUICK)
    yield made
    made.close()


def test_a_connection_is_used_again(web: Web) -> None:
    with BlobSource(BLOB) as source:
        for _ in range(3):
            assert ask(web, source.source) == (200, BODY)
        assert len(web._idle) == 1
        ports = {link.connection.sock.getsockname()[1] for link in web._idle.values()}
        ask(web, source.source)
        assert ports == {link.connection.sock.getsockname()[1] for link in web._idle.values()}


def test_a_connection_that_ended_meanwhile_is_made_anew(web: Web) -> None:
    with BlobSource(BLOB) as source:
        ask(web, source.source)
        for link in web._idle.values():
            link.wake()
        assert ask(web, source.source) == (200, BODY)


def test_a_registry_gives_a_token(web: Web) -> None:
    with BlobSource(BLOB, users={"device": "secret"}) as source:
        with pytest.raises(RegistryDeniedError, match="login"):
            ask(web, source.registry)
        knowing = Web(limits=QUICK, logins={source.host: ("device", "secret")})
        assert ask(knowing, source.registry) == (200, BODY)
        before = len(source.asked("GET", "token"))
        assert ask(knowing, source.registry) == (200, BODY)
        assert len(source.asked("GET", "token")) == before
        knowing.close()
        wrong = Web(limits=QUICK, logins={source.host: ("device", "other")})
        with pytest.raises(RegistryDeniedError):
            ask(wrong, source.registry)
        wrong.close()


def test_a_registry_with_basic(web: Web) -> None:
    challenge = {"www-authenticate": 'Basic realm="x"'}
    with BlobSource(BLOB) as source:
        source.on("GET", "blobs", send(401, b"", challenge))
        knowing = Web(limits=QUICK, logins={source.host: ("a", "b")})
        assert ask(knowing, source.registry) == (200, BODY)
        _, headers = source.asked("GET")[-1]
        assert headers["Authorization"] == "Basic YTpi"
        knowing.close()


def test_another_host_does_not_see_the_login() -> None:
    with BlobSource(BLOB) as elsewhere, BlobSource(BLOB, users={"u": "p"}) as source:
        where = f"{elsewhere.url}/v2/{REPOSITORY}/{PATH}"
        web = Web(limits=QUICK, logins={source.host: ("u", "p")})
        assert ask(web, source.registry) == (200, BODY)
        source.on("GET", "blobs", send(307, b"", {"location": where}))
        assert ask(web, source.registry) == (200, BODY)
        ((_, headers),) = elsewhere.asked("GET")
        assert "Authorization" not in headers
        web.close()


def test_redirects_without_end(web: Web) -> None:
    with BlobSource(BLOB) as source:
        source.on("GET", "blobs", send(302, b"", {"location": "?again"}), times=99)
        with pytest.raises(RegistryError, match="without"):
            ask(web, source.source)
        assert len(source.asked("GET")) == QUICK.redirects + 1


def test_no_way_down_from_https() -> None:
    with pytest.raises(RegistryError, match="without it"):
        w._redirected("https://a/b", "http://a/b")
    assert w._redirected("https://a/b/c", "../d") == "https://a/d"


@pytest.mark.parametrize(
    "url",
    ["", "x", "ftp://h/", "http:///x", "http://h:x/", "http://h/\r\nx", "http://[", "http://h/ü"],
)
def test_what_is_no_address(web: Web, url: str) -> None:
    with pytest.raises((RegistryError, PassingError)):
        ask(web, Source(url=url))


def test_nothing_is_asked_once_it_is_not_wanted(web: Web) -> None:
    stop = Stop()
    stop.set()
    with BlobSource(BLOB) as source:
        with pytest.raises(StoppedError):
            web.ask(source.source, PATH, stop=stop)
        assert not source.requests


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("", 0),
        ("5", 5),
        ("99999999", 3600),
        ("²", 0),
        ("-3", 0),
        ("Fri, 01 Jan 1990 00:00:00 GMT", 0),
        ("Fri, 01 Jan 2100 00:00:00 GMT", 3600),
        ("soon", 0),
    ],
)
def test_when_to_come_back(text: str, seconds: float) -> None:
    assert w._retry_after(text) == seconds


def test_tls_with_the_devices_certificate(tmp_path: Path) -> None:
    authority = certificates.Authority()
    trusted = authority.write(tmp_path / "ca.pem")
    theirs = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(trusted))
    theirs.load_cert_chain(*authority.issue(tmp_path, "server"))
    theirs.verify_mode = ssl.CERT_REQUIRED
    ours = ssl.create_default_context(cafile=str(trusted))
    stranger = ssl.create_default_context(cafile=str(trusted))
    ours.load_cert_chain(*authority.issue(tmp_path, "camera-1"))
    with BlobSource(BLOB) as source:
        plain = source._server.socket
        source._server.socket = theirs.wrap_socket(plain, server_side=True)
        secure = Source(url=source.source.url.replace("http:", "https:"))
        web = Web(limits=QUICK, contexts={"controller": ours, "registry": stranger})
        for _ in range(2):
            assert ask(web, secure) == (200, BODY)
        for context in (stranger, ssl.create_default_context()):
            other = Web(limits=QUICK, contexts={"controller": context})
            with pytest.raises(PassingError, match="cannot be reached"):
                ask(other, secure)
            other.close()
        web.close()


def test_a_source_that_does_not_speak_tls(web: Web) -> None:
    with BlobSource(BLOB) as source, pytest.raises(PassingError, match="cannot be reached"):
        ask(web, Source(url=source.source.url.replace("http:", "https:")))

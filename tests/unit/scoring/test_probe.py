"""The health check of containers, against servers that answer, refuse and hang up."""

from __future__ import annotations

import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from scoring import probe
from tests.support.certificates import Authority

Answer = Callable[[socket.socket], None]


@contextmanager
def serving(answer: Answer, context: ssl.SSLContext | None = None) -> Iterator[int]:
    """A server of one connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            try:
                plain, _ = listener.accept()
                with plain:
                    plain.settimeout(5)
                    if context is None:
                        answer(plain)
                        return
                    with context.wrap_socket(plain, server_side=True) as wrapped:
                        answer(wrapped)
            except OSError:
                pass

        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        thread.join(10)
        assert not thread.is_alive()


def answering(status: str) -> Answer:
    def answer(connection: socket.socket) -> None:
        assert connection.recv(4096).startswith(b"GET /health/ready HTTP/1.1\r\n")
        for piece in (b"HTTP/1.1 ", f"{status}\r\nContent-Length: 0\r\n\r\n".encode()):
            connection.sendall(piece)

    return answer


def hang_up(_connection: socket.socket) -> None:
    """Ends the connection without a word."""


def run(monkeypatch: pytest.MonkeyPatch, port: int, **settings: str) -> int:
    for name, value in {"port": str(port), "host": "0.0.0.0", **settings}.items():
        monkeypatch.setenv(f"FIELDPOST_SERVER_{name.upper()}", value)
    return probe.main()


@pytest.mark.parametrize(("status", "code"), [("200 OK", 0), ("503 Unavailable", 1), ("?", 1)])
def test_the_status_decides(monkeypatch: pytest.MonkeyPatch, status: str, code: int) -> None:
    with serving(answering(status)) as port:
        assert run(monkeypatch, port) == code


def test_what_is_no_answer(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(hang_up) as port:
        assert run(monkeypatch, port) == 1
    assert run(monkeypatch, port) == 1  # nobody listens any more
    assert "does not answer" in capsys.readouterr().out
    monkeypatch.setenv("FIELDPOST_SERVER_PORT", "many")
    assert probe.main() == 1


@pytest.fixture
def context(tmp_path: Path) -> ssl.SSLContext:
    pair = Authority().issue(tmp_path, "somewhere")
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(*pair)
    return made


def test_tls_with_a_certificate_for_another_name(
    monkeypatch: pytest.MonkeyPatch, context: ssl.SSLContext
) -> None:
    with serving(answering("200 OK"), context) as port:
        assert run(monkeypatch, port, tls_cert="cert.pem") == 0
    with serving(hang_up, context) as port:
        assert run(monkeypatch, port, tls_cert="cert.pem") == 1


def test_a_server_that_wants_certificates_is_ready_when_it_shakes_hands(
    monkeypatch: pytest.MonkeyPatch, context: ssl.SSLContext
) -> None:
    with serving(hang_up, context) as port:
        given = {"tls_cert": "cert.pem", "tls_client_ca": "ca.pem"}
        assert run(monkeypatch, port, **given) == 0


def test_it_runs_alone() -> None:
    """As an engine runs it: isolated, with the standard library only."""
    with serving(answering("200 OK")) as port:
        done = subprocess.run(
            [sys.executable, "-I", "-S", probe.__file__],
            env={"FIELDPOST_SERVER_PORT": str(port)},
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
    assert (done.returncode, done.stdout.strip()) == (0, "ready")

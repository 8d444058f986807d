"""The small runtime as a process: its contract, its connections, its end."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from scoring.quantum.circuit import Circuit
from tests.support.circuit_server import serving, write_root
from tests.support.circuits import random_circuit

ROW = b'{"data": [[1, 2, 3, 4]]}'
HEAD = b"POST /score HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"


@pytest.fixture(scope="module")
def model() -> Circuit:
    return random_circuit(2, 8, 5)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, model: Circuit) -> Path:
    return write_root(tmp_path_factory.mktemp("circuit") / "root", model)


@pytest.fixture(scope="module")
def port(root: Path) -> Iterator[int]:
    limits = {"header_timeout_s": 0.5, "body_timeout_s": 0.5, "max_body_bytes": 100_000}
    with serving(root, **limits) as (found, _):
        yield found


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), 10)


def talk(port: int, data: bytes) -> bytes:
    """Everything that is answered until the end of the connection."""
    with connect(port) as client:
        client.sendall(data)
        found = b""
        while piece := client.recv(65536):
            found += piece
        return found


def test_requests_follow_each_other_on_one_connection(port: int) -> None:
    one = HEAD + b"Content-Length: %d\r\n\r\n%s" % (len(ROW), ROW)
    last = one.replace(b"Host: x", b"Host: x\r\nConnection: close")
    found = talk(port, one + one + b"\r\n" + last)
    assert found.count(b"HTTP/1.1 200 OK") == 3
    assert found.count(b"connection: close") == 1


def test_bodies_in_chunks_and_a_client_that_asks_first(port: int) -> None:
    chunks = b"".join(b"%x;n=1\r\n%s\r\n" % (len(part), part) for part in (ROW[:7], ROW[7:]))
    head = HEAD + b"Connection: close\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n"
    found = talk(port, head + chunks + b"0\r\nTrailer: x\r\n\r\n")
    assert found.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK")


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\nHost: x\r\n\r\n", 505),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\n folded\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost : x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nA: \x00\r\n\r\n", 400),
        (b"GET / HTTP/1.1\nHost: x\n\n\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 200 + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"b" * 70_000 + b"\r\n\r\n", 431),
        (b"CONNECT x HTTP/1.1\r\nHost: x\r\n\r\n", 405),
        (HEAD + b"Content-Length: x\r\n\r\n", 400),
        (HEAD + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (HEAD + b"Content-Length: +1\r\n\r\n", 400),
        (HEAD + b"Content-Length: 100001\r\n\r\n", 413),
        (HEAD + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n", 501),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\nxxx", 400),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n1ffff\r\n", 413),
        (HEAD + b"Expect: more\r\n\r\n", 417),
        (HEAD + b"Content-Length: 9\r\n\r\n", 408),
        (b"GET / HT", 408),
    ],
    ids=range(23),
)
def test_what_is_no_request_ends_the_connection(port: int, data: bytes, status: int) -> None:
    found = talk(port, data)
    assert found.startswith(b"HTTP/1.1 %d " % status), found
    assert b"connection: close" in found
    assert b'{"error":{"code":' in found


def test_heads_alone(port: int) -> None:
    found = talk(port, b"HEAD / HTTP/1.0\r\n\r\n")
    assert found.startswith(b"HTTP/1.1 200 OK")
    assert b"content-length: 7\r\n" in found
    assert found.endswith(b"\r\n\r\n")


def test_many_rows_keep_nobody_waiting(root: Path) -> None:
    many = msgspec.json.encode({"data": [[1, 2, 3, 4]] * 60_000})
    with serving(root) as (port, _):
        slow = threading.Thread(target=ask, args=(port, "POST", "/score", many))
        slow.start()
        waited = []
        while slow.is_alive():
            begun = time.monotonic()
            assert ask(port, "GET", "/health/live")[0] == 200
            waited.append(time.monotonic() - begun)
        slow.join()
    assert len(waited) > 1


def ask(port: int, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    with contextlib.closing(connection):
        connection.request(method, path, body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        return answer.status, answer.read()


def test_a_drain_answers_what_has_begun(root: Path) -> None:
    one = HEAD + b"Content-Length: %d\r\n\r\n%s" % (len(ROW), ROW)
    with serving(root, drain_idle_s=0.5) as (port, process), connect(port) as busy:
        with connect(port) as idle:
            busy.sendall(one[:-5])
            assert ask(port, "GET", "/health/ready")[0] == 200
            process.send_signal(signal.SIGTERM)
            until(lambda: not accepts(port))
            busy.sendall(one[-5:])
            found = busy.recv(65536)
            assert found.startswith(b"HTTP/1.1 200 OK")
            assert b"connection: close" in found
            assert idle.recv(1) == b""
        assert process.wait(20) == 0


def accepts(port: int) -> bool:
    """Whether anyone takes connections: the test's own socket listens on, so one is asked."""
    with connect(port) as client:
        client.settimeout(0.3)
        client.sendall(b"GET /health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        try:
            return bool(client.recv(1))
        except TimeoutError:
            return False


def until(true: Any, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline


def run(root: Path, **environment: str) -> tuple[int, dict[str, Any]]:
    """A worker that ends by itself: its status, and what it said."""
    reading, writing = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-m", "edge.circuits.worker", str(root)],
        env={"FIELDPOST_STATUS_FD": str(writing), "PATH": os.environ["PATH"], **environment},
        pass_fds=(writing,),
        stderr=subprocess.DEVNULL,
    )
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        line = pipe.readline()
    return process.wait(30), msgspec.json.decode(line)


def test_what_does_not_load_is_told(tmp_path: Path, root: Path) -> None:
    status, told = run(tmp_path)
    assert (status, told["state"], told["error"]["code"]) == (3, "failed", "file_not_found")
    large = write_root(tmp_path / "large", random_circuit(7, 10, 1))
    status, told = run(large)
    assert (status, told["error"]["code"]) == (3, "circuit_too_large")
    status, told = run(root, FIELDPOST_SERVER_API_KEYS="/keys")
    assert (status, told["error"]["code"]) == (3, "usage")
    assert "FIELDPOST_SERVER_API_KEYS" in told["error"]["message"]


def test_it_goes_when_its_supervisor_goes(root: Path) -> None:
    lifeline, held = os.pipe()
    gate, shut = os.pipe()
    own = socket.create_server(("127.0.0.1", 0))
    environment = {
        "FIELDPOST_LISTEN_FD": str(own.fileno()),
        "FIELDPOST_LIFELINE_FD": str(lifeline),
        "FIELDPOST_GATE_FD": str(gate),
        "PATH": os.environ["PATH"],
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "edge.circuits.worker", str(root)],
        env=environment,
        pass_fds=(own.fileno(), lifeline, gate),
        stderr=subprocess.PIPE,
    )
    with own, process:
        for number in (lifeline, gate):
            os.close(number)
        assert process.stderr is not None
        assert b"Ready" in process.stderr.readline()
        assert not accepts(own.getsockname()[1])  # the gate is shut
        os.close(shut)
        until(lambda: accepts(own.getsockname()[1]))
        os.close(held)
        assert process.wait(20) == 0

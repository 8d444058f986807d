"""The two programs that are sent into containers, as real processes on this machine.

`front.py` holds the port; `join.py` becomes `tiny_worker.py`, which speaks the worker's contract.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from scoring.errors import UnreachableError
from serve.endpoints.front import heads
from serve.targets.docker import events
from tests.support.local import WORKER, eventually, get
from tests.support.registry import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SOURCES = Path(events.__file__).parent


class Stage:
    """A front and its workers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.socket = str(folder / "front.sock")
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.lines: list[str] = []
        self.processes: list[subprocess.Popen[str]] = []
        self.orders = os.pipe()  # of a supervisor, for which `tiny_worker` asks
        self.front = self.raise_front()

    def raise_front(self) -> subprocess.Popen[str]:
        source = (SOURCES / "front.py").read_text()
        arguments = [self.socket, "127.0.0.1", str(self.port)]
        process = self._start([source, *arguments], subprocess.PIPE)
        threading.Thread(target=self._hear, args=(process,), daemon=True).start()
        eventually(lambda: any("listening" in line for line in self.lines))
        self.front = process
        return process

    def worker(self, name: str, **behaviour: Any) -> subprocess.Popen[str]:
        """Starts a worker that joins the front."""
        root = self.folder / name.replace("/", "-")
        root.mkdir(exist_ok=True)
        (root / "behaviour.json").write_text(json.dumps({"answer": name, **behaviour}))
        source = (SOURCES / "join.py").read_text()
        command = [sys.executable, "-I", "-S", str(WORKER), str(root)]
        return self._start([source, self.socket, name, *command], None)

    def told(self, name: str) -> events.Told:
        return events.read(self.lines).get(name, events.Told())

    def until(self, name: str, holds: Callable[[events.Told], object]) -> None:
        eventually(lambda: holds(self.told(name)))

    def answers(self) -> str:
        """Who answers now."""
        return get(self.url).split(" ", maxsplit=1)[0]

    def open(self) -> None:
        self.front.send_signal(signal.SIGUSR1)

    def close(self) -> None:
        for each in self.orders:
            os.close(each)
        for process in self.processes:
            process.kill()
            process.wait()
            if process.stdout:
                process.stdout.close()

    def _start(self, arguments: list[str], output: int | None) -> subprocess.Popen[str]:
        command = [sys.executable, "-I", "-S", "-c", *arguments]
        supervised = {"FIELDPOST_SPARE_FD": "", "FIELDPOST_COVER_FD": str(self.orders[0])}
        process = subprocess.Popen(
            command,
            stdout=output,
            text=True,
            env={**os.environ, **supervised},
            pass_fds=self.orders[:1],
        )
        self.processes.append(process)
        return process

    def _hear(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout
        with contextlib.suppress(ValueError):  # closed with the stage
            for line in process.stdout:
                self.lines.append(f"2026-01-01T00:00:00Z {line}")


@pytest.fixture
def stage() -> Iterator[Stage]:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:  # short enough for sockets
        opened = Stage(Path(folder))
        try:
            yield opened
        finally:
            opened.close()


def test_the_first_worker_is_let_in_at_once(stage: Stage) -> None:
    stage.worker("r1/w0")
    stage.until("r1/w0", lambda told: told.answers)
    assert stage.answers() == "r1/w0"


def test_a_worker_of_another_revision_waits_for_the_word(stage: Stage) -> None:
    old = stage.worker("r1/w0")
    stage.until("r1/w0", lambda told: told.answers)
    stage.worker("r2/w0")
    stage.until("r2/w0", lambda told: told.ready)
    assert not stage.told("r2/w0").opened
    assert {stage.answers() for _ in range(20)} == {"r1/w0"}
    stage.open()
    stage.until("r2/w0", lambda told: told.answers)
    old.terminate()
    assert old.wait(10) == 0
    assert {stage.answers() for _ in range(20)} == {"r2/w0"}


def test_siblings_and_those_who_come_back_are_let_in(stage: Stage) -> None:
    first = stage.worker("r1/w0")
    stage.until("r1/w0", lambda told: told.answers)
    stage.worker("r1/w1")
    stage.until("r1/w1", lambda told: told.answers)
    first.kill()
    first.wait()
    stage.until("r1/w0", lambda told: not told.joined)
    stage.worker("r1/w0")
    stage.until("r1/w0", lambda told: told.answers)


def test_connections_wait_while_no_worker_is_there(stage: Stage) -> None:
    with socket.create_connection(("127.0.0.1", stage.port), 10) as early:
        early.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        worker = stage.worker("r1/w0")
        answer = b""
        while b"r1/w0" not in answer:
            piece = early.recv(4096)
            assert piece, answer
            answer += piece
        worker.kill()


def test_why_a_worker_failed_is_told(stage: Stage) -> None:
    worker = stage.worker("r1/w0", fail="not a number")
    assert worker.wait(10) == 3
    stage.until("r1/w0", lambda told: told.error)
    told = stage.told("r1/w0")
    assert told.error is not None
    assert "not a number" in told.error["message"]
    assert "Traceback" in told.detail


def test_long_tracebacks_are_cut_to_a_line_of_a_log(stage: Stage) -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(stage.socket)
        client.sendall(b"r9/w0\n")
        _, descriptors, _, _ = socket.recv_fds(client, 16, 2)
        error = {"code": "x", "message": "m"}
        for detail in ("d" * 100_000 + "the end", "\x00" * 100_000):
            report = {"state": "failed", "error": error, "detail": detail}
            client.sendall(json.dumps(report).encode() + b"\n")
        client.sendall(b"garbage\n[]\n{}\n")
        eventually(lambda: sum("failed" in line for line in stage.lines) == 2)
        assert all(len(line) < 16_000 for line in stage.lines)
        assert stage.told("r9/w0").error is not None
        for each in descriptors:
            os.close(each)
    stage.until("r9/w0", lambda told: not told.joined)


def test_workers_go_with_the_front_and_join_the_next(stage: Stage) -> None:
    worker = stage.worker("r1/w0")
    stage.until("r1/w0", lambda told: told.answers)
    stage.front.terminate()
    assert stage.front.wait(10) == 0
    assert worker.wait(10) == 0
    waiting = stage.worker("r1/w0")  # before there is a front again
    stage.lines.clear()
    stage.raise_front()
    stage.until("r1/w0", lambda told: told.answers)
    assert stage.answers() == "r1/w0"
    waiting.kill()


def test_a_worker_that_waits_for_a_front_can_be_stopped(stage: Stage) -> None:
    stage.front.kill()
    stage.front.wait()
    worker = stage.worker("r1/w0")
    status = Path(f"/proc/{worker.pid}/status")
    bit = 1 << (signal.SIGTERM - 1)

    def is_ready() -> bool:
        caught = next(line for line in status.read_text().splitlines() if "SigCgt" in line)
        return bool(int(caught.split()[1], 16) & bit)

    eventually(is_ready)
    worker.terminate()
    assert worker.wait(10) == 0


def test_after_the_stop_nobody_is_kept_waiting(stage: Stage) -> None:
    worker = stage.worker("r1/w0")
    stage.until("r1/w0", lambda told: told.answers)
    worker.terminate()
    worker.wait(10)
    stage.front.send_signal(signal.SIGUSR2)

    silent = socket.create_connection(("127.0.0.1", stage.port), 5)
    with socket.create_connection(("127.0.0.1", stage.port), 5) as hello:
        hello.sendall(b"\x16\x03\x01")  # TLS: a word in clear would be none
        assert hello.recv(100) == b""
    for _ in range(300):
        with socket.create_connection(("127.0.0.1", stage.port), 5) as client:
            client.sendall(b"POST /score HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n")
            client.sendall(b"x" * 100_000)
            said = b"".join(iter(lambda: client.recv(4096), b""))
        head, _, body = said.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 503 ")
        assert b"\r\n" + heads.TURNED_AWAY + b": " in head.lower()
        assert json.loads(body)["code"] == UnreachableError.code
    silent.close()
    stage.worker("r2/w0")
    stage.open()
    stage.until("r2/w0", lambda told: told.answers)
    assert stage.answers() == "r2/w0"


def test_someone_who_says_nothing_is_forgotten(stage: Stage) -> None:
    for _ in range(3):
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(stage.socket)
    stage.worker("r1/w0")
    stage.until("r1/w0", lambda told: told.answers)
    assert stage.front.poll() is None

from __future__ import annotations

import stat
import threading
from typing import TYPE_CHECKING

import msgspec
import pytest

from scoring.errors import TargetError
from serve.targets.local import control
from serve.targets.local.control import SupervisorGoneError

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable
    from pathlib import Path


def served(server: socket.socket, answer: bytes) -> threading.Thread:
    """Answers one connection after its request has come."""

    def work() -> None:
        server.setblocking(True)
        connection, _ = server.accept()
        with connection, connection.makefile("rb") as lines:
            lines.readline()
            connection.sendall(answer)

    thread = threading.Thread(target=work)
    thread.start()
    return thread


@pytest.fixture
def talk(tmp_path: Path) -> Callable[[bytes], control.Answer]:
    def exchange(answer: bytes) -> control.Answer:
        with control.listen(tmp_path) as server:
            thread = served(server, answer)
            try:
                return control.ask(tmp_path, {"op": "status"}, timeout_s=5)
            finally:
                thread.join()

    return exchange


def test_done_and_failed_are_told_apart(talk: Callable[[bytes], control.Answer]) -> None:
    done = talk(b'{"event":"progress","text":"x"}\n{"event":"done","result":{"a":1}}\n')
    assert (done.ok, done.result) == (True, {"a": 1})
    failed = talk(b'{"event":"failed","error":{"message":"no"},"detail":"tb"}\n')
    assert (failed.ok, failed.error, failed.detail) == (False, {"message": "no"}, "tb")


@pytest.mark.parametrize("answer", [b"", b'{"event":"progress","text":"x"}\n'])
def test_an_end_without_an_answer_is_told(
    talk: Callable[[bytes], control.Answer], answer: bytes
) -> None:
    with pytest.raises(SupervisorGoneError):
        talk(answer)


def test_progress_is_passed_on_and_heartbeats_are_not(tmp_path: Path) -> None:
    heard: list[str] = []
    events = [
        {"event": "progress", "text": ""},
        {"event": "progress", "text": "starting"},
        {"event": "done", "result": {}},
    ]
    with control.listen(tmp_path) as server:
        thread = served(server, b"".join(msgspec.json.encode(e) + b"\n" for e in events))
        control.converse(control.connect(tmp_path, 5), tmp_path, {}, heard.append)
        thread.join()
    assert heard == ["starting"]


def test_silence_is_an_error_after_a_while(tmp_path: Path) -> None:
    with control.listen(tmp_path), pytest.raises(TargetError, match="silent"):
        control.ask(tmp_path, {}, timeout_s=0.1)


def test_nobody_listens_where_nobody_is(tmp_path: Path) -> None:
    assert not control.is_listening(tmp_path)
    assert not control.is_listening(tmp_path / "none")
    control.listen(tmp_path).close()
    assert (tmp_path / control.SOCKET_NAME).exists()
    assert not control.is_listening(tmp_path)


def test_only_the_same_user_gets_in(tmp_path: Path) -> None:
    with control.listen(tmp_path):
        mode = (tmp_path / control.SOCKET_NAME).stat().st_mode
    assert stat.S_IMODE(mode) == 0o600


def test_a_path_too_long_for_the_kernel_works(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 100) / ("e" * 100)
    deep.mkdir(parents=True)
    with control.listen(deep) as server:
        assert (deep / control.SOCKET_NAME).is_socket()
        thread = served(server, b'{"event":"done","result":{}}\n')
        assert control.ask(deep, {}, timeout_s=5).ok
        thread.join()

"""Lines on their way to a file: renamed files, full disks, slow pipes."""

from __future__ import annotations

import errno
import logging
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from serve.server.telemetry import logfile
from serve.server.telemetry.logfile import LogFile
from tests.support.server import until


def test_lines_are_appended(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"before\n")
    file = LogFile(str(path))
    file.put([b"one\n", b"two\n"])
    until(lambda: file.written == 2)
    assert path.read_bytes() == b"before\none\ntwo\n"
    file.close()


def test_a_renamed_file_is_followed_by_a_new_one(tmp_path: Path) -> None:
    path = tmp_path / "log"
    file = LogFile(str(path))
    for number in range(3):
        file.put([b"%d\n" % number])
        until(lambda number=number: file.written == number + 1)  # type: ignore[misc]
        path.rename(tmp_path / f"log.{number}")
    file.put([b"last\n"])
    file.close()
    assert [(tmp_path / f"log.{number}").read_bytes() for number in range(3)] == [
        b"0\n",
        b"1\n",
        b"2\n",
    ]
    assert path.read_bytes() == b"last\n"


def test_a_file_that_is_cut_goes_on_at_its_begin(tmp_path: Path) -> None:
    """As logrotate's `copytruncate` does it."""
    path = tmp_path / "log"
    file = LogFile(str(path))
    file.put([b"one\n"])
    until(lambda: file.written == 1)
    os.truncate(path, 0)
    file.put([b"two\n"])
    file.close()
    assert path.read_bytes() == b"two\n"


class Disk:
    """`os.write` of a disk with so much room."""

    def __init__(self, room: int, code: int = errno.ENOSPC) -> None:
        self.room = room
        self.code = code

    def write(self, descriptor: int, data: bytes | memoryview) -> int:
        if not self.room:
            raise OSError(self.code, os.strerror(self.code))
        taken = min(len(data), self.room)
        self.room -= taken
        return _write(descriptor, bytes(data[:taken]))


_write = os.write


def test_a_full_disk_drops_lines_and_says_so_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    disk = Disk(10)
    monkeypatch.setattr("serve.server.telemetry.logfile.os.write", disk.write)
    path = tmp_path / "log"
    file = LogFile(str(path))
    with caplog.at_level(logging.ERROR):
        for _ in range(5):
            file.put([b"123456\n", b"abcdef\n"])
        until(lambda: file.written + file.dropped == 10)
    assert (file.written, file.dropped) == (1, 9)
    assert len(caplog.records) == 1
    assert "No space left" in caplog.text
    disk.room = 1000
    file.put([b"again\n"])
    until(lambda: file.written == 2)
    file.close()
    # What was cut off is closed by a line feed; no line is glued to it.
    assert path.read_bytes() == b"123456\nabc\nagain\n"


def test_a_file_that_cannot_be_opened_again_is_tried_again(tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    file = LogFile(str(folder / "log"))
    file.put([b"one\n"])
    until(lambda: file.written == 1)
    folder.rename(tmp_path / "away")
    file.put([b"two\n"])
    until(lambda: file.dropped == 1)
    folder.mkdir()
    file.put([b"three\n"])
    file.close()
    assert (folder / "log").read_bytes() == b"three\n"
    assert (tmp_path / "away" / "log").read_bytes() == b"one\n"


def test_a_stuck_disk_holds_up_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go = threading.Event()

    def stuck(descriptor: int, data: bytes | memoryview) -> int:
        assert go.wait(20)
        return _write(descriptor, data)

    monkeypatch.setattr(logfile, "_MOST_LINES", 100)
    monkeypatch.setattr(logfile, "_CLOSE_S", 0.05)
    monkeypatch.setattr("serve.server.telemetry.logfile.os.write", stuck)
    file = LogFile(str(tmp_path / "log"))
    for _ in range(50):
        file.put([b"line\n"] * 10)
    assert file.dropped == 400
    file.close()
    assert file.dropped == 500
    go.set()
    file._thread.join(10)


def test_standard_error_gets_whole_lines_in_pieces_that_a_pipe_takes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pieces: list[bytes] = []

    def write(descriptor: int, data: bytes | memoryview) -> int:
        assert descriptor == 2
        pieces.append(bytes(data))
        return len(data)

    monkeypatch.setattr("serve.server.telemetry.logfile.os.write", write)
    file = LogFile("-")
    lines = [b"%d" % n + b"x" * 300 + b"\n" for n in range(100)]
    lines.append(b"y" * 10_000 + b"\n")
    file.put(lines)
    file.close()
    assert b"".join(pieces) == b"".join(lines)
    assert max(map(len, pieces)) <= 4096
    assert all(piece.endswith(b"\n") for piece in pieces if b"y" not in piece)
    assert file.written == 101


def test_a_pipe_that_would_block_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    saved = os.dup(2)
    os.dup2(writing, 2)
    try:
        file = LogFile("-")
        lines = [b"z" * 999 + b"\n"] * 200  # more than a pipe holds
        file.put(lines)
        got = b""
        while len(got) < 200_000:
            got += os.read(reading, 65_536)
        until(lambda: file.written == 200)
        file.close()
        assert got == b"".join(lines)
    finally:
        os.dup2(saved, 2)
        for descriptor in (saved, reading, writing):
            os.close(descriptor)


def test_the_mode_leaves_others_out(tmp_path: Path) -> None:
    file = LogFile(str(tmp_path / "log"))
    file.close()
    assert (tmp_path / "log").stat().st_mode & 0o007 == 0


def test_a_closed_reader_costs_only_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_descriptor: int, _data: Any) -> int:
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    monkeypatch.setattr("serve.server.telemetry.logfile.os.write", broken)
    file = LogFile("-")
    file.put([b"a\n"])
    until(lambda: file.dropped == 1)
    file.close()

from __future__ import annotations

import errno
import io
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serve.targets.local.logs import LogWriter, log_numbers, log_path, read_log

if TYPE_CHECKING:
    from collections.abc import Callable


def texts(folder: Path, tail: int | None = None) -> list[str]:
    return [line.split(" ", 2)[2] for line in read_log(folder, tail=tail)]


def writer(folder: Path, max_bytes: int = 400, max_files: int = 3) -> LogWriter:
    return LogWriter(folder, max_bytes=max_bytes, max_files=max_files)


def test_a_line_has_time_revision_and_worker(tmp_path: Path) -> None:
    with writer(tmp_path) as log:
        log.write("r3/w0", "hello world")
    (line,) = read_log(tmp_path)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z r3/w0 hello world", line)


def test_an_empty_log_is_empty(tmp_path: Path) -> None:
    assert list(read_log(tmp_path / "none")) == []
    assert list(read_log(tmp_path / "none", tail=5)) == []


def test_line_breaks_and_odd_characters_stay_within_their_line(tmp_path: Path) -> None:
    with writer(tmp_path) as log:
        log.write("r1/w0", "a\rb\nc \ud800 é")
    assert texts(tmp_path) == ["a\\rb\\nc ? é"]


def test_files_are_capped_in_size_and_number(tmp_path: Path) -> None:
    with writer(tmp_path) as log:
        for number in range(60):
            log.write("r1/w0", f"line {number}")
    files = list(tmp_path.iterdir())
    assert len(files) == 3
    assert all(file.stat().st_size <= 400 for file in files)
    assert texts(tmp_path)[-1] == "line 59"


def test_a_line_longer_than_a_file_is_kept(tmp_path: Path) -> None:
    with writer(tmp_path) as log:
        log.write("r1/w0", "short")
        log.write("r1/w0", "x" * 1000)
        log.write("r1/w0", "end")
    assert texts(tmp_path) == ["short", "x" * 1000, "end"]


def test_a_new_writer_goes_on_where_the_last_one_ended(tmp_path: Path) -> None:
    for number in range(10):
        log = writer(tmp_path, max_bytes=200, max_files=9)
        log.write("r1/w0", f"line {number}")
        log.close()
    assert texts(tmp_path) == [f"line {number}" for number in range(10)]
    assert len(log_numbers(tmp_path)) > 1


@settings(max_examples=40, deadline=None)
@given(count=st.integers(0, 80), tail=st.integers(0, 100), size=st.integers(40, 600))
def test_the_tail_is_the_end_of_the_whole(count: int, tail: int, size: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        log = writer(Path(folder), max_bytes=size, max_files=4)
        for number in range(count):
            log.write("r1/w0", f"line {number}")
        log.close()
        whole = texts(Path(folder))
        assert whole == [f"line {number}" for number in range(count)][-len(whole) or count :]
        assert texts(Path(folder), tail=tail) == whole[len(whole) - min(tail, len(whole)) :]


def test_following_loses_nothing_across_rotation(tmp_path: Path) -> None:
    log = writer(tmp_path, max_files=100)
    written = 0

    def write_some(_seconds: float) -> None:
        nonlocal written
        for _ in range(25):  # several files between two looks
            log.write("r1/w0", f"line {written}")
            written += 1

    log.write("r1/w0", "before")
    lines = read_log(tmp_path, follow=True, tail=0, wait=write_some)
    seen = [next(lines).split(" ", 2)[2] for _ in range(200)]
    assert seen == [f"line {number}" for number in range(200)]
    log.close()


def test_a_line_that_is_half_written_is_waited_for(tmp_path: Path) -> None:
    file = log_path(tmp_path, 1)
    file.write_bytes(b"T r1/w0 whole\nT r1/w0 ha")
    assert texts(tmp_path) == ["whole"]

    def step(_seconds: float) -> None:
        with file.open("ab") as stream:
            stream.write(b"lf\n")

    lines = read_log(tmp_path, follow=True, wait=step)
    assert [next(lines), next(lines)] == ["T r1/w0 whole", "T r1/w0 half"]


class FullDisk(io.FileIO):
    """Takes `room` bytes and then no more."""

    room = 0

    def write(self, data: bytes) -> int:  # type: ignore[override]
        piece = bytes(data)[: FullDisk.room]
        FullDisk.room -= len(piece)
        if not piece:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(piece)


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    def opened(path: Path, mode: str, buffering: int = -1) -> io.FileIO:
        return FullDisk(path, mode.replace("b", ""))

    def limit(room: int) -> None:
        FullDisk.room = room

    monkeypatch.setattr(Path, "open", opened)
    return limit


@pytest.mark.parametrize("room", [0, 1, 30, 47])
def test_a_full_disk_loses_lines_and_says_so_later(
    tmp_path: Path, full_disk: Callable[[int], None], room: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = writer(tmp_path, max_bytes=4000)
    full_disk(10_000)
    log.write("r1/w0", "before")
    full_disk(room)
    for _ in range(3):
        log.write("r1/w0", "a line that is quite a bit too long for what is left")
    full_disk(10_000)
    log.write("r1/w0", "after")
    log.close()
    monkeypatch.undo()
    found = texts(tmp_path)
    assert found == ["before", "3 lines were lost: they could not be written", "after"]

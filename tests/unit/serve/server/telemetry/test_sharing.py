"""Files of cells: who owns them, who reads them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from serve.server.telemetry import families as f
from serve.server.telemetry import process
from serve.server.telemetry.counters import SIZE
from serve.server.telemetry.sharing import SharedCells


def rejected(shared: SharedCells) -> float:
    return sum(
        cells.read(f.REJECTED, first)[0]
        for _, cells, _ in shared.all()
        for (family, _), first in cells.blocks.items()
        if family is f.REJECTED
    )


def count(shared: SharedCells, times: int = 1) -> None:
    shared.own.values[shared.own.block(f.REJECTED, "overloaded")] += times


def test_each_worker_sees_all_others_at_once(tmp_path: Path) -> None:
    one, two = SharedCells(tmp_path / "m", "0"), SharedCells(tmp_path / "m", "1")
    for shared, times in ((one, 2), (two, 3), (one, 5)):
        count(shared, times)
    assert rejected(one) == rejected(two) == 10
    assert {name: alive for name, _, alive in one.all()} == {"0": True, "1": True}
    one.close()
    two.close()


def test_a_slot_that_is_still_in_use_is_shared_out(tmp_path: Path) -> None:
    """The successor comes while the predecessor drains: both count."""
    one, two = SharedCells(tmp_path, "0"), SharedCells(tmp_path, "0")
    assert (one.name, two.name) == ("0", "0.1")
    count(one)
    count(two)
    assert rejected(one) == 2
    one.close()
    three = SharedCells(tmp_path, "0")
    assert three.name == "0"
    assert rejected(three) == 2
    two.close()
    three.close()


def test_all_files_of_a_slot_may_be_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serve.server.telemetry.sharing._MOST_FILES", 2)
    shared = [SharedCells(tmp_path, "0") for _ in range(2)]
    with pytest.raises(OSError, match="in use"):
        SharedCells(tmp_path, "0")
    for each in shared:
        each.close()


def test_a_file_of_another_layout_is_replaced_and_never_cut(tmp_path: Path) -> None:
    path = tmp_path / "0.cells"
    path.write_bytes(b"ANOTHER!" + bytes(SIZE - 8))
    inode = path.stat().st_ino
    with path.open("rb") as held:
        shared = SharedCells(tmp_path, "0")
        assert os.fstat(held.fileno()).st_size == SIZE
    assert path.stat().st_ino != inode
    assert shared.own.valid
    shared.close()


def test_files_that_are_none_of_ours_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "short.cells").write_bytes(b"x")
    (tmp_path / "noise.cells").write_bytes(os.urandom(SIZE))
    (tmp_path / "folder.cells").mkdir()
    (tmp_path / "link.cells").symlink_to("/dev/zero")
    (tmp_path / "README").write_text("hello")
    shared = SharedCells(tmp_path, "0")
    assert [name for name, _, _ in shared.all()] == ["0"]
    shared.close()


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "0.cells").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="0"):
        SharedCells(tmp_path, "0")
    assert not (tmp_path / "elsewhere").exists()


def test_the_files_are_only_for_their_owner(tmp_path: Path) -> None:
    shared = SharedCells(tmp_path / "new", "0")
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "new" / "0.cells").stat().st_mode & 0o777 == 0o600
    shared.close()


def test_a_dead_process_is_not_alive_and_neither_is_a_zombie() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    ticks = process.start_ticks(child.pid)
    assert ticks
    assert process.is_alive(child.pid, ticks)
    assert not process.is_alive(child.pid, ticks + 1)  # another one of the same number
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert not process.is_alive(child.pid, ticks)
    child.communicate()
    assert not process.is_alive(child.pid, ticks)
    assert process.start_ticks(child.pid) == 0
    assert process.read(child.pid) is None


def test_what_the_kernel_says_of_this_process() -> None:
    info = process.read(os.getpid())
    assert info is not None
    assert info.cpu_s > 0
    assert info.resident_bytes > 1 << 20
    assert info.virtual_bytes is not None
    assert info.virtual_bytes > info.resident_bytes
    assert info.open_fds is not None
    assert info.max_fds is not None
    assert 3 <= info.open_fds <= info.max_fds


def test_without_proc_this_process_is_known_at_least(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "_PROC", tmp_path)
    info = process.read(os.getpid())
    assert info is not None
    assert info.cpu_s > 0
    assert info.started_s is None
    assert process.read(1) is None
    assert process.is_alive(os.getpid(), process.start_ticks(os.getpid()))

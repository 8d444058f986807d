"""The harness itself: it must be able to find what it looks for."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from tests.faults import harness

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CARELESS = "open({path!r}, 'w').write('new' * 10000)"


def test_a_careless_write_is_caught_by_a_kill(tmp_path: Path) -> None:
    harness.require_strace()
    path = tmp_path / "file"
    seen = set()

    def argv() -> list[str]:
        path.write_text("old")
        return [sys.executable, "-I", "-S", "-c", CARELESS.format(path=str(path))]

    def check(step: harness.Step) -> None:
        seen.add(path.read_text())

    steps = harness.kill_at_each_write(argv, check, syscalls=["write"])
    assert harness.Step("write", 1) in steps
    assert "" in seen  # neither old nor new: the truncated file


def test_a_careless_write_is_caught_by_a_full_disk(tmp_path: Path) -> None:
    harness.require_strace()
    path = tmp_path / "file"

    def argv() -> list[str]:
        path.write_text("old")
        return [sys.executable, "-I", "-S", "-c", CARELESS.format(path=str(path))]

    def check(step: harness.Step, code: int) -> None:
        assert path.read_text() == ""

    assert harness.fail_at_each_write(argv, check, syscalls=["write"])


def test_a_child_dies_at_every_step_in_turn(tmp_path: Path) -> None:
    left = []

    def prepare() -> Callable[[], None]:
        def action() -> None:
            (tmp_path / "x").mkdir()
            (tmp_path / "x").rename(tmp_path / "one")
            (tmp_path / "one").rmdir()

        for name in ("x", "one"):
            if (tmp_path / name).exists():
                (tmp_path / name).rmdir()
        return action

    def check(number: int) -> None:
        left.append(sorted(path.name for path in tmp_path.iterdir()))

    assert harness.kill_in_fork(prepare, check) == 3
    assert left == [[], ["x"], ["one"]]


def test_a_command_that_fails_by_itself_is_no_test(tmp_path: Path) -> None:
    harness.require_strace()
    with pytest.raises(AssertionError):
        harness.kill_at_each_write(lambda: [sys.executable, "-c", "exit(1)"], lambda step: None)

from __future__ import annotations

from pathlib import Path

from edge.agent.logs import ModuleLog


def test_a_log_has_a_cap_and_its_end_is_read_over_both_files(tmp_path: Path) -> None:
    log = ModuleLog(tmp_path / "logs", "main", most=100)
    for number in range(100):
        log.write(b"line %03d\n" % number)
    assert sum(path.stat().st_size for path in (tmp_path / "logs").iterdir()) < 240
    tail = log.tail(60).splitlines()
    assert tail == [f"line {number:03d}" for number in range(100 - len(tail), 100)]
    assert len(tail) == 6


def test_a_log_that_is_not_there_is_empty(tmp_path: Path) -> None:
    assert ModuleLog(tmp_path, "main").tail(100) == ""


def test_a_line_longer_than_what_is_asked_for_is_cut(tmp_path: Path) -> None:
    log = ModuleLog(tmp_path, "main")
    log.write(b"x" * 500)
    assert log.tail(100) == "x" * 100


def test_a_disk_that_cannot_be_written_stops_nobody(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    ModuleLog(tmp_path / "file", "main").write(b"lost")

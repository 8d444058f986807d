"""Processes are known with all that they start, and end with it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from benchmarks.machine import Process, StartError, family, free_ports, living

TREE = """
import subprocess, sys, time
child = "import time; time.sleep(60)"
subprocess.Popen([sys.executable, "-c", child], start_new_session=True)
print("started", flush=True)
time.sleep(60)
"""


def fields(parent: int, session: int) -> list[str]:
    return ["S", str(parent), "0", str(session)]


def test_a_family_has_sessions_of_its_own() -> None:
    known = {
        10: fields(1, 10),
        11: fields(10, 10),
        12: fields(1, 10),  # its parent has gone
        20: fields(11, 20),
        21: fields(20, 20),
        30: fields(1, 30),
    }
    assert family(10, known) == [10, 11, 12, 20, 21]


def test_all_of_it_is_weighed_and_ended(tmp_path: Path) -> None:
    log = tmp_path / "log"
    process = Process.start([sys.executable, "-c", TREE], os.environ, tmp_path, log)
    try:
        process.wait_ready(lambda: "started" in log.read_text(), 20)
        pids = process.pids()
        assert len(pids) == 2
        assert process.memory_mib() > 5
        assert process.processor_s() >= 0
    finally:
        process.end()
    assert not living() & set(pids)
    assert process.popen.returncode is not None


def test_an_early_end_is_told_with_its_last_words(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import sys; sys.exit('no such model')"]
    process = Process.start(command, os.environ, tmp_path, tmp_path / "log")
    with pytest.raises(StartError, match="ended with 1: no such model"):
        process.wait_ready(lambda: False, 20)
    process.end()


def test_a_server_that_does_not_come_up_is_told(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import time; time.sleep(60)"]
    process = Process.start(command, os.environ, tmp_path, tmp_path / "log")
    try:
        with pytest.raises(StartError, match="not ready in 0 s"):
            process.wait_ready(lambda: False, 0.05)
    finally:
        process.end()


def test_ports_differ() -> None:
    assert len(set(free_ports(3))) == 3

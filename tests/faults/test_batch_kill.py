"""Batch runs under `kill -9`, of workers, models and the command: each row has one result."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.batching import rows_of

SLOW = """
import time
def init():
    pass
def run(data):
    time.sleep(0.004)
    return [row[0] * 2 for row in data]
"""
# The process that scores the third shard ends itself, but once.
FRAGILE = """
import json, os, signal
from pathlib import Path
def init():
    pass
def run(data):
    if data[0][0] == 500 and not (flag := Path(__file__).with_name("died")).exists():
        flag.write_text("")
        os.kill(os.getpid(), signal.SIGKILL)
    return [row[0] * 2 for row in data]
"""
MAIN = "from serve.cli.main import main; main()"
ROWS = 2000


def lay_out(folder: Path, script: str, rows: int = ROWS) -> list[str]:
    """A script and a dataset; the command that scores one with the other."""
    code = folder / "code"
    code.mkdir()
    text = script.replace(
        "def run(data):", "def run(raw):\n    data = __import__('json').loads(raw)['data']"
    )
    (code / "score.py").write_text(text)
    (folder / "rows.csv").write_text("n\n" + "".join(f"{n}\n" for n in range(rows)))
    return [
        *(sys.executable, "-c", MAIN, "batch", "score", str(code / "score.py")),
        *(str(folder / "rows.csv"), str(folder / "out.csv"), "--columns", "n", "--keep", "n"),
        *("--shard-rows", "100", "--call-rows", "20", "--workers", "2", "--json"),
    ]


def start(folder: Path, command: list[str]) -> subprocess.Popen[bytes]:
    with (folder / "log").open("ab") as log:
        return subprocess.Popen(
            command,
            env={**os.environ, "FIELDPOST_WORKSPACE": str(folder / "ws")},
            stdout=subprocess.PIPE,
            stderr=log,
        )


def finish(folder: Path, command: list[str]) -> dict[str, Any]:
    process = start(folder, command)
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 0, (folder / "log").read_text()
    document: dict[str, Any] = json.loads(out)
    return document


def assert_whole(folder: Path, rows: int = ROWS) -> None:
    found = rows_of(folder / "out.csv")
    assert [(int(row["n"]), float(row["prediction"])) for row in found] == [
        (n, 2.0 * n) for n in range(rows)
    ]
    left = [path.name for path in (folder / ".out.csv.fieldpost").iterdir()]
    assert not [name for name in left if name.startswith(".fieldpost-tmp") or name == "parts"]


def below(pid: int) -> list[int]:
    """The processes that a process has started, and theirs."""
    found: list[int] = []
    for task in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = task.read_text()
        except OSError:
            continue
        if int(text.rpartition(")")[2].split()[1]) == pid:
            child = int(task.parent.name)
            found += [child, *below(child)]
    return found


def test_a_model_that_dies_is_started_again(tmp_path: Path) -> None:
    command = lay_out(tmp_path, FRAGILE)
    summary = finish(tmp_path, command)
    assert (summary["rows"], summary["written"], summary["shards"]) == (ROWS, ROWS, 20)
    assert (
        "is tried again: The process of the model was ended by signal 9"
        in (tmp_path / "log").read_text()
    )
    assert_whole(tmp_path)


def test_killed_workers_and_models_cost_nothing_but_time(tmp_path: Path) -> None:
    command = [*lay_out(tmp_path, SLOW), "--attempts", "50"]
    process = start(tmp_path, command)
    killed = 0
    chance = random.Random(7)
    deadline = time.monotonic() + 60
    while process.poll() is None and killed < 6 and time.monotonic() < deadline:
        if any((tmp_path / ".out.csv.fieldpost" / "done").glob("*.json")):
            victims = below(process.pid)
            if victims:
                try:
                    os.kill(chance.choice(victims), signal.SIGKILL)
                    killed += 1
                except ProcessLookupError:
                    pass
        time.sleep(0.05)
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 0, (tmp_path / "log").read_text()
    assert killed >= 3
    assert json.loads(out)["written"] == ROWS
    assert_whole(tmp_path)


def test_the_same_command_goes_on_where_a_killed_one_ended(tmp_path: Path) -> None:
    command = lay_out(tmp_path, SLOW)
    done = tmp_path / ".out.csv.fieldpost" / "done"
    orphans: list[int] = []
    for wanted in (2, 7):
        process = start(tmp_path, command)
        deadline = time.monotonic() + 60
        while len(list(done.glob("*.json"))) < wanted and time.monotonic() < deadline:
            assert process.poll() is None, (tmp_path / "log").read_text()
            time.sleep(0.01)
        orphans += below(process.pid)
        process.kill()
        process.communicate()
    summary = finish(tmp_path, command)
    assert summary["resumed"] >= 7
    assert summary["rows"] == ROWS
    assert_whole(tmp_path)
    deadline = time.monotonic() + 20
    while [pid for pid in orphans if is_alive(pid)] and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not [pid for pid in orphans if is_alive(pid)]


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_ctrl_c_ends_a_run_that_is_gone_on_with(tmp_path: Path) -> None:
    command = lay_out(tmp_path, SLOW)
    done = tmp_path / ".out.csv.fieldpost" / "done"
    process = start(tmp_path, command)
    deadline = time.monotonic() + 60
    while not list(done.glob("*.json")) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Interrupted" in (tmp_path / "log").read_text()
    assert finish(tmp_path, command)["resumed"] >= 1
    assert_whole(tmp_path)


def test_a_second_command_is_told_of_the_first(tmp_path: Path) -> None:
    command = lay_out(tmp_path, SLOW.replace("0.004", "0.1"))
    process = start(tmp_path, command)
    lock = tmp_path / ".out.csv.fieldpost" / "done"
    deadline = time.monotonic() + 60
    while not lock.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    second = start(tmp_path, command)
    out, _ = second.communicate(timeout=60)
    assert second.returncode == 1
    assert json.loads(out)["error"]["code"] == "in_use"
    cancelled = start(tmp_path, [*command[:4], "cancel", str(tmp_path / "out.csv"), "--json"])
    out, _ = cancelled.communicate(timeout=60)
    assert json.loads(out)["state"] == "interrupted"
    process.communicate(timeout=30)
    assert process.returncode == 130


def test_a_model_that_always_dies_is_given_up(tmp_path: Path) -> None:
    command = [*lay_out(tmp_path, FRAGILE.replace("flag.write_text", "str")), "--attempts", "2"]
    process = start(tmp_path, command)
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 1
    error = json.loads(out)["error"]
    assert "ended by signal 9" in error["message"]
    assert "memory" in error["hint"]


@pytest.mark.parametrize("limit_kib", [64])
def test_a_full_disk_is_told_and_costs_nothing(tmp_path: Path, limit_kib: int) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={limit_kib}k", "none", str(small)],
        check=False,
        capture_output=True,
    )
    if mounted.returncode:
        pytest.skip("no file system of a fixed size can be mounted")
    try:
        command = lay_out(tmp_path, SLOW.replace("row[0] * 2", "'x' * 500"))
        command = [text.replace("/out.csv", "/small/out.csv") for text in command]
        process = start(tmp_path, command)
        out, _ = process.communicate(timeout=120)
        assert process.returncode == 1
        error = json.loads(out)["error"]
        assert error["code"] == "storage_full"
        assert "out.csv. What is scored stays." in error["message"]
        assert "Free space" in error["hint"]
        assert b"Traceback" not in (tmp_path / "log").read_bytes()
        assert not (small / "out.csv").exists()
    finally:
        subprocess.run(["umount", str(small)], check=False)

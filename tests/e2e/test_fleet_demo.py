"""`fieldpost fleet demo` as a user runs it: both brokers, what it prints, and what it leaves."""

from __future__ import annotations

import importlib.util
import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support import brokers

COMMAND = [str(Path(sys.executable).with_name("fieldpost")), "fleet", "demo", "--quick"]
KINDS = ["mosquitto", "amqtt"]


def require(kind: str) -> None:
    if kind == "mosquitto":
        brokers.require()
    elif importlib.util.find_spec("amqtt") is None:
        pytest.skip("amqtt is not installed")


@contextmanager
def demo(
    folder: Path, *arguments: str, environment: dict[str, str] | None = None, **given: Any
) -> Iterator[subprocess.Popen[str]]:
    values = {**os.environ, "TMPDIR": str(folder), **(environment or {})}
    process = subprocess.Popen(
        [*COMMAND, *arguments],
        **({"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | given),
        text=True,
        env=values,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()


def children_in(folder: Path) -> list[str]:
    """The processes whose command line names a file of the demo."""
    found = []
    for each in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = each.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(folder) in line:
            found.append(line)
    return found


def eventually_none(folder: Path, within_s: float = 10) -> bool:
    deadline = time.monotonic() + within_s
    while children_in(folder) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not children_in(folder)


@pytest.mark.parametrize("kind", KINDS)
def test_a_bad_version_halts_and_two_devices_go_back(kind: str, tmp_path: Path) -> None:
    require(kind)
    with demo(tmp_path, "--broker", kind, "--json") as process:
        out, err = process.communicate(timeout=90)
    assert process.returncode == 0, err
    told = json.loads(out)
    assert told["as_told"] is True
    assert told["broker"]["kind"] == kind
    assert [one["version"] for one in told["versions"]] == [1, 2]
    devices = {one["name"]: one for one in told["devices"]}
    assert len(devices) == 5
    gone_back = {name for name, one in devices.items() if one["phase"] == "reverted"}
    assert gone_back == set(told["versions"][1]["broken_on"])
    assert len(gone_back) == 2
    assert all(devices[name]["version"] == 1 and devices[name]["healthy"] for name in gone_back)
    assert all(one["failure"]["phase"] == "soaking" for one in map(devices.get, gone_back) if one)
    first, second = told["rollouts"]
    assert (first["state"], first["counts"]) == ("complete", {"good": 5})
    assert (second["state"], second["counts"]) == ("halted", {"failed": 2, "good": 2, "pending": 1})
    assert second["wave"] < second["waves"]
    untold = [name for name, state in second["devices"].items() if state == "pending"]
    assert [devices[name]["version"] for name in untold] == [1]
    assert "halted by itself" in err
    assert list(tmp_path.iterdir()) == []
    assert eventually_none(tmp_path)


@pytest.mark.parametrize(("kind", "how"), [("mosquitto", signal.SIGINT), ("amqtt", signal.SIGTERM)])
def test_an_interrupt_leaves_nothing(kind: str, how: signal.Signals, tmp_path: Path) -> None:
    require(kind)
    with demo(tmp_path, "--broker", kind) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "Version 1 is rolled out" in line:
                break
        assert children_in(tmp_path)
        process.send_signal(how)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []
    assert eventually_none(tmp_path)


@pytest.mark.parametrize("kind", KINDS)
def test_a_broker_ends_with_a_demo_that_is_killed(kind: str, tmp_path: Path) -> None:
    require(kind)
    with demo(tmp_path, "--broker", kind) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "runs at mqtt" in line:
                break
        assert children_in(tmp_path)
        process.kill()
        process.wait()
        assert eventually_none(tmp_path)


def test_a_terminal_shows_a_table(tmp_path: Path) -> None:
    brokers.require()
    shown = bytearray()
    ours, theirs = pty.openpty()
    values = {"TERM": "xterm", "COLUMNS": "120", "LINES": "50"}
    with demo(tmp_path, stdout=theirs, stderr=theirs, environment=values) as process:
        os.close(theirs)
        while True:
            try:
                part = os.read(ours, 65536)
            except OSError:  # its end
                break
            if not part:
                break
            shown += part
        assert process.wait(60) == 0
    os.close(ours)
    text = shown.decode(errors="replace")
    for word in ("DEVICE", "camera-5", "reverted", "halted", "version 2", "rev-b"):
        assert word in text

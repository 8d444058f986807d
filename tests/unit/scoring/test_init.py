"""Process 1 of a container, in a process namespace of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import scoring

ROOT = Path(scoring.__file__).parents[1]
BEGIN = f"""
import os, signal, subprocess, sys, time
sys.path.insert(0, {str(ROOT)!r})
from scoring.init import become_init
assert os.getpid() == 1, os.getpid()
become_init()
assert os.getpid() != 1
"""


def require_namespaces() -> None:
    """Skips by name where no process may have a namespace of its own."""
    command = ["unshare", "--pid", "--fork", "true"]
    try:
        done = subprocess.run(command, capture_output=True, check=False, timeout=20)
    except FileNotFoundError:
        pytest.skip("unshare is not installed")
    if done.returncode:
        pytest.skip(f"no process namespaces here: {done.stderr.decode().strip()}")


def started(code: str) -> subprocess.Popen[str]:
    require_namespaces()
    command = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child", sys.executable]
    return subprocess.Popen(
        [*command, "-u", "-c", BEGIN + code],
        stdout=subprocess.PIPE,
        text=True,
        env={"PATH": os.environ["PATH"]},
    )


def inner(process: subprocess.Popen[str]) -> int:
    """The pid of the namespace's process 1, seen from here."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return int(children[0])


@pytest.mark.parametrize(("code", "status"), [("sys.exit(3)", 3), ("", 0), ("os.abort()", 134)])
def test_it_ends_as_the_server_does(code: str, status: int) -> None:
    process = started(code)
    process.communicate(timeout=30)
    assert process.returncode == status


def test_signals_reach_the_server_once() -> None:
    process = started(
        """
seen = []
signal.signal(signal.SIGTERM, lambda *_: seen.append("term"))
signal.signal(signal.SIGHUP, lambda *_: seen.append("hup"))
print("ready", flush=True)
while len(seen) < 2:
    signal.pause()
print(*seen)
"""
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    for number in (signal.SIGTERM, signal.SIGHUP):
        os.kill(inner(process), number)
    assert sorted(process.communicate(timeout=30)[0].split()) == ["hup", "term"]
    assert process.returncode == 0


def test_a_server_that_leaves_signals_alone_is_ended_by_them() -> None:
    process = started('print("ready", flush=True)\ntime.sleep(60)')
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    os.kill(inner(process), signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == 128 + signal.SIGTERM


def test_orphans_are_buried() -> None:
    process = started(
        """
def zombies():
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                text = open(f"/proc/{name}/stat").read()
            except OSError:
                continue
            fields = text.rpartition(")")[2].split()
            if fields[0] == "Z" and fields[1] == "1":
                found.append(name)
    return found

reading, writing = os.pipe()
if os.fork() == 0:
    for _ in range(5):
        if os.fork() == 0:
            os.read(reading, 1)
            os._exit(0)
    os._exit(0)
os.wait()
os.write(writing, b"x" * 5)
deadline = time.monotonic() + 20
count = lambda: sum(name.isdigit() for name in os.listdir("/proc"))
while count() > 2 and time.monotonic() < deadline:
    time.sleep(0.01)
print(count(), zombies())
"""
    )
    assert process.communicate(timeout=40)[0].split() == ["2", "[]"]

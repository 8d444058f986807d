"""Counters of workers that are killed while they count."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
from pathlib import Path
from time import perf_counter

import pytest

from scoring.errors import UsageError
from serve.server.settings import ServerSettings
from serve.server.telemetry.telemetry import SLOT_VARIABLE, Telemetry
from tests.support.server import until
from tests.support.telemetry import scrape

# Counts one request for each byte that it gets, and says so after it.
WORKER = """
import os, sys
from time import perf_counter
from serve.server.settings import ServerSettings
from serve.server.telemetry.telemetry import Telemetry
telemetry = Telemetry.from_settings(ServerSettings(metrics_dir=sys.argv[1]), print)
telemetry.watch(in_flight=lambda: 1, connections=lambda: 1)
channel = telemetry.channel("score", "m", "1")
telemetry.tick()
os.write(1, b"+")
while data := os.read(0, 1):
    channel.answered(200, perf_counter(), 1, 1)
    os.write(1, data)
"""


class Worker:
    """A process that counts when it is told to."""

    def __init__(self, folder: Path, slot: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", WORKER, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, SLOT_VARIABLE: slot},
            bufsize=0,
        )
        self.confirmed = 0
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()
        until(lambda: self.confirmed >= 1)
        self.confirmed -= 1

    def ask(self, many: int) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(b"." * many)

    def kill(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        self._thread.join()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        while data := self._process.stdout.read(4096):
            self.confirmed += len(data)


def test_counters_never_go_back_when_workers_are_killed(tmp_path: Path) -> None:
    rng = random.Random(7)
    settings = ServerSettings(metrics_dir=str(tmp_path))
    watcher = Telemetry.from_settings(settings, lambda *_: None, {SLOT_VARIABLE: "watcher"})
    workers = {slot: Worker(tmp_path, slot) for slot in ("0", "1")}
    asked = confirmed = 0
    seen = 0.0
    for _ in range(6):
        for worker in workers.values():
            worker.ask(2000)
            asked += 2000
        slot = rng.choice(["0", "1"])
        victim = workers[slot]
        reached = rng.randrange(1, 1500)
        until(lambda victim=victim, reached=reached: victim.confirmed >= reached)  # type: ignore[misc]
        victim.kill()
        confirmed += victim.confirmed
        page = scrape(watcher)
        assert page("fieldpost_workers") == 2  # the watcher and the other one
        assert page("fieldpost_in_flight") == 1
        workers[slot] = Worker(tmp_path, slot)
        now = scrape(watcher)("fieldpost_requests_total", model="m", code="200")
        assert seen <= now <= asked
        assert now >= confirmed
        seen = now
    for worker in workers.values():
        worker.kill()
    page = scrape(watcher)
    assert page("fieldpost_requests_total") >= seen
    assert page("fieldpost_worker_starts_total") == 9
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "0.cells",
        "1.cells",
        "watcher.cells",
    ]
    watcher.close()


def test_a_scrape_right_after_n_answers_shows_n(tmp_path: Path) -> None:
    settings = ServerSettings(metrics_dir=str(tmp_path))
    watcher = Telemetry.from_settings(settings, lambda *_: None, {SLOT_VARIABLE: "watcher"})
    workers = [Worker(tmp_path, str(number)) for number in range(3)]
    total = 0
    for many in (1, 10, 500):
        for worker in workers:
            before = worker.confirmed
            worker.ask(many)
            until(lambda worker=worker, goal=before + many: worker.confirmed == goal)  # type: ignore[misc]
            total += many
            assert scrape(watcher)("fieldpost_requests_total") == total
    for worker in workers:
        worker.kill()
    watcher.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs to mount a small file system")
def test_a_full_disk_is_said_at_the_start_and_ends_no_worker(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1536k", "tmpfs", str(disk)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip("tmpfs cannot be mounted here")
    try:
        settings = ServerSettings(metrics_dir=str(disk))
        one = Telemetry.from_settings(settings, lambda *_: None, {SLOT_VARIABLE: "0"})
        (disk / "rest").write_bytes(b"x" * (500 << 10))
        with pytest.raises(UsageError, match="No space"):
            Telemetry.from_settings(settings, lambda *_: None, {SLOT_VARIABLE: "1"})
        for number in range(300):  # every page of its file that it may touch is there
            one.channel("v2", f"m{number}").answered(200, perf_counter(), 1, 1)
        assert scrape(one)("fieldpost_requests_total") == 300
        one.close()
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)

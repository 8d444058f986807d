"""Asynchronous jobs under `kill -9` and full disks: what was accepted ends in a result."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from serve.server.asyncjobs.files import read_pair
from serve.server.asyncjobs.records import Result
from serve.server.asyncjobs.store import Limits, Store
from tests.faults import harness
from tests.support.scripts import ScriptWorker, serving
from tests.support.server import until

if TYPE_CHECKING:
    from collections.abc import Callable

# Two jobs are accepted, one with a key; one is answered. What is accepted is noted.
LIFE = """
import os, sys, time
from pathlib import Path
from scoring.errors import FieldpostError
from serve.server.asyncjobs import records
from serve.server.asyncjobs.records import Record, Request, Result
from serve.server.asyncjobs.store import Limits, Store

folder, noted = Path(sys.argv[1]), os.open(sys.argv[2], os.O_WRONLY | os.O_APPEND)
store = Store(folder, Limits())
for number in range(2):
    now = time.time()
    record = Record(
        id=records.new_id(now), status="queued", created=now, target="/score",
        key=records.digest(b"key") if number else "", fingerprint="f",
    )
    try:
        store.submit(record, Request(method="POST", target="/score", headers=[]), b"%d" % number)
    except FieldpostError:
        continue
    os.write(noted, record.id.encode() + b"\\n")
try:
    claim = store.claim_next()
    if claim is not None:
        with claim.writer() as writer:
            writer.begin(Result(status=200, headers=[]))
            writer.append(b"answer to " + claim.request()[1])
            writer.finish()
        claim.adopt_result()
        claim.release()
except FieldpostError:
    pass
"""


@pytest.fixture
def fresh(tmp_path: Path) -> Callable[[], list[str]]:
    """The command of a life of the store, on nothing."""
    folder, noted = tmp_path / "jobs", tmp_path / "noted"

    def argv() -> list[str]:
        shutil.rmtree(folder, ignore_errors=True)
        noted.write_bytes(b"")
        return [sys.executable, "-c", LIFE, str(folder), str(noted)]

    return argv


def check(folder: Path, noted: Path) -> None:
    """Everything that was accepted is there, and can be answered; nothing is left half done."""
    store = Store(folder, Limits())
    while (claim := store.claim_next()) is not None:
        _, body = claim.request()
        with claim.writer() as writer:
            writer.begin(Result(status=200, headers=[]))
            writer.append(b"answer to " + body)
            writer.finish()
        claim.adopt_result()
        claim.release()
    accepted = noted.read_text().split()
    for number, job_id in enumerate(accepted):
        assert store.read(job_id).status == "succeeded"
        answer = read_pair(store.result(job_id), Result)[1]
        assert answer.startswith(b"answer to "), number
    left = {path.name for path in folder.rglob("*")} - {"state", "request", "result", "keys"}
    assert not [name for name in left if name.startswith(".fieldpost-tmp-")]


@pytest.mark.parametrize("kind", ["kill", "full"])
def test_the_store_at_each_write(fresh: Callable[[], list[str]], tmp_path: Path, kind: str) -> None:
    harness.require_strace()
    folder, noted = tmp_path / "jobs", tmp_path / "noted"
    env = {"PYTHONPATH": str(Path(__file__).parents[2])}
    if kind == "kill":
        steps = harness.kill_at_each_write(
            fresh, lambda _: check(folder, noted), env=env, sample=14
        )
    else:
        # The note itself is a write of the test's own.
        def after(_step: harness.Step, code: int) -> None:
            assert code in {0, 1}
            check(folder, noted)

        steps = harness.fail_at_each_write(
            fresh,
            after,
            syscalls=("pwrite64", "mkdir", "rename", "renameat", "fsync"),
            env=env,
            sample=14,
        )
    assert len(steps) >= 10


SCRIPT = """
    import json, time
    def init(): pass
    def run(data):
        time.sleep(0.01)
        return json.loads(data)
"""


class Sender(threading.Thread):
    """Sends jobs to whichever server there is, and remembers what was accepted."""

    def __init__(self, worker: ScriptWorker) -> None:
        super().__init__()
        self.worker = worker
        self.accepted: dict[str, int] = {}
        self.over = threading.Event()

    def run(self) -> None:
        number = 0
        while not self.over.wait(0.005):
            number += 1
            try:
                answer = httpx.post(
                    f"{self.worker.url}/score",
                    json=number,
                    headers={"prefer": "respond-async", "idempotency-key": str(number)},
                    timeout=5,
                )
            except httpx.TransportError:
                continue
            if answer.status_code == 202:
                self.accepted[answer.json()["id"]] = number


def test_a_server_killed_at_random_moments_answers_every_job(tmp_path: Path) -> None:
    rounds = 40 if harness.LONG else 6
    with serving(tmp_path, SCRIPT, FIELDPOST_SERVER_JOBS_DIR=str(tmp_path / "jobs")) as worker:
        sender = Sender(worker)
        sender.start()
        try:
            for _ in range(rounds):
                before = len(sender.accepted)
                until(lambda: len(sender.accepted) > before + 1, 30)  # noqa: B023
                time.sleep(random.uniform(0, 0.3))
                worker.kill()
                worker.start()
        finally:
            sender.over.set()
            sender.join()
        assert len(sender.accepted) > rounds
        for job_id, number in sender.accepted.items():
            until(lambda: told(worker, job_id)["status"] not in {"queued", "running"}, 30)  # noqa: B023
            assert told(worker, job_id)["status"] == "succeeded"
            assert httpx.get(f"{worker.url}/jobs/{job_id}/result").json() == number


def told(worker: ScriptWorker, job_id: str) -> dict[str, Any]:
    document: dict[str, Any] = httpx.get(f"{worker.url}/jobs/{job_id}").json()
    return document


def test_a_worker_that_dies_of_its_job_gives_it_up(tmp_path: Path) -> None:
    code = """
        import os, signal
        def init(): pass
        def run(data):
            os.kill(os.getpid(), signal.SIGKILL)
    """
    with serving(tmp_path, code, FIELDPOST_SERVER_JOBS_DIR=str(tmp_path / "jobs")) as worker:
        place = httpx.post(
            f"{worker.url}/score", content="x", headers={"prefer": "respond-async"}
        ).headers["location"]
        for _ in range(3):
            assert worker.process.wait(20) == -signal.SIGKILL
            worker.start()
        job_id = place.rsplit("/", 1)[1]
        until(lambda: told(worker, job_id)["status"] == "failed")
        assert told(worker, job_id)["attempts"] == 3
        result = httpx.get(f"{worker.url}{place}/result")
        assert result.status_code == 500
        assert "3 attempts" in result.json()["error"]["message"]


def test_a_full_disk_refuses_jobs_and_keeps_results_until_there_is_room(tmp_path: Path) -> None:
    """On a file system of its own, where one may be mounted."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip("a small file system cannot be mounted here")
    code = """
        import json, os, time
        def init(): pass
        def run(data):
            asked = json.loads(data)
            while not os.path.exists(asked["until"]):
                time.sleep(0.01)
            return "x" * asked["length"]
    """
    go, filler = tmp_path / "go", disk / "filler"
    headers = {"prefer": "respond-async"}
    try:
        with serving(tmp_path, code, FIELDPOST_SERVER_JOBS_DIR=str(disk / "jobs")) as worker:
            url = f"{worker.url}/score"
            asked = {"until": str(go), "length": 100_000}
            place = httpx.post(url, json=asked, headers=headers).headers["location"]
            job_id = place.rsplit("/", 1)[1]
            until(lambda: told(worker, job_id)["status"] == "running")
            fill(filler)
            full = httpx.post(url, json=asked, headers=headers)
            assert (full.status_code, full.json()["error"]["code"]) == (507, "storage_full")
            go.touch()
            until(lambda: "kept in memory" in worker.log.read_text())
            assert told(worker, job_id)["status"] == "running"
            assert httpx.post(url, json={**asked, "length": 1}).json() == "x"
            filler.unlink()
            until(lambda: told(worker, job_id)["status"] == "succeeded", 20)
            assert len(httpx.get(f"{worker.url}{place}/result").json()) == 100_000
            assert len(httpx.get(f"{worker.url}/jobs").json()["jobs"]) == 1
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=False)


def fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 4096)
        except OSError:
            pass

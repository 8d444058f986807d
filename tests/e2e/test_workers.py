"""Several real workers on one port: spread, pinned, replaced, killed, drained, under load."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from scoring.bundle import Bundle, ScriptSpec, encode
from tests.support import load
from tests.support.load import Load
from tests.support.server import until

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="needs SO_REUSEPORT as Linux has it"
)

SCRIPT = """
import json, os, threading, time
held = []
def init():
    pass
def run(data):
    asked = json.loads(data)
    if asked.get("burn"):
        end = time.monotonic() + asked["burn"]
        while time.monotonic() < end:
            pass
    time.sleep(asked.get("seconds", 0))
    if asked.get("leak"):
        held.append(b"x" * (asked["leak"] << 20))
    if asked.get("tell"):
        return {"env": dict(os.environ), "cores": sorted(os.sched_getaffinity(0)),
                "pid": os.getpid()}
    return os.getpid()
"""

# `fieldpost serve` has no flags for the pauses between looks at the memory.
POOL = """
import sys
from serve.server.restarts import Limits
from serve.server.running import serve_pool
limits = Limits(drain_timeout_s=20, stable_s=0.5, first_wait_s=0.05, max_restarts=1000,
                worker_max_mib=int(sys.argv[3]), memory_look_s=0.1, replace_pause_s=0.1)
import os
sys.exit(serve_pool([sys.executable, "-m", "serve.server.worker", sys.argv[1]], env=os.environ,
    host="127.0.0.1", port=0, workers=int(sys.argv[2]), limits=limits,
    log=lambda name, line: print(name, line, file=sys.stderr, flush=True),
    on_ready=lambda host, port: print(port, flush=True)))
"""


class Server:
    """A supervisor and its workers."""

    def __init__(self, root: Path, workers: int, limit: int, log: Path, **env: str) -> None:
        self._log = log
        with log.open("w") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, "-c", POOL, str(root), str(workers), str(limit)],
                env={**os.environ, "FIELDPOST_SERVER_DRAIN_IDLE_S": "0.3", **env},
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
            )
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline() or 0)
        assert self.port, self.log
        self.url = f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        return self._log.read_text()

    @property
    def workers(self) -> list[int]:
        """Their processes."""
        texts = []
        for each in Path(f"/proc/{self.process.pid}/task").iterdir():
            with contextlib.suppress(OSError):  # that thread has just ended
                texts.append((each / "children").read_text())
        return sorted(int(pid) for text in texts for pid in text.split())

    def ask(self, **document: Any) -> Any:
        """Scores over a connection of its own."""
        return httpx.post(f"{self.url}/score", json=document, timeout=20).json()

    def reached(self, workers: int) -> dict[str, dict[str, Any]]:
        """What each worker tells of itself, by its process."""
        found: dict[str, dict[str, Any]] = {}
        while len(found) < workers:
            told = self.ask(tell=True)
            found[told["pid"]] = told
        return found


@contextlib.contextmanager
def serving(folder: Path, workers: int, *, limit: int = 0, **env: str) -> Iterator[Server]:
    root = folder / "root"
    (root / "code").mkdir(parents=True)
    (root / "model").mkdir()
    (root / "code/score.py").write_text(textwrap.dedent(SCRIPT), "utf-8")
    bundle = Bundle("script", "script", script=ScriptSpec("score.py"))
    (root / "model/bundle.json").write_bytes(encode(bundle))
    server = Server(root, workers, limit, folder / "log", **env)
    try:
        yield server
    finally:
        server.process.terminate()
        try:
            server.process.wait(30)  # longer than its own drain may take
        except subprocess.TimeoutExpired:
            server.process.kill()
            raise
        finally:
            assert server.process.stdout is not None
            server.process.stdout.close()


EMPTY = load.post("/score", b"{}")


def test_workers_have_cores_and_counters_of_their_own_and_scripts_see_no_contract(
    tmp_path: Path,
) -> None:
    with serving(tmp_path, 2) as server:
        first, second = server.reached(2).values()
        whole = sorted(os.sched_getaffinity(0))
        if len(whole) > 1:
            assert not set(first["cores"]) & set(second["cores"])
            assert sorted({*first["cores"], *second["cores"]}) == whole
            assert 1 <= int(first["env"]["OMP_NUM_THREADS"]) <= len(first["cores"])
        for told in (first, second):
            names = [name for name in told["env"] if name.startswith("FIELDPOST_")]
            ours = [name for name in names if not name.startswith("FIELDPOST_SERVER_")]
            assert [name for name in ours if name.endswith(("_FD", "_SLOT", "_COUNT"))] == []
        metrics = {told["env"]["FIELDPOST_SERVER_METRICS_DIR"] for told in (first, second)}
        (folder,) = metrics
        assert len(list(Path(folder).iterdir())) >= 2, "a file for each worker"
    assert not Path(folder).exists()


def test_pinning_can_be_off(tmp_path: Path) -> None:
    with serving(tmp_path, 2, FIELDPOST_SERVER_PIN="off") as server:
        assert server.ask(tell=True)["cores"] == sorted(os.sched_getaffinity(0))


def test_only_what_a_killed_worker_had_in_hand_is_lost(tmp_path: Path) -> None:
    with serving(tmp_path, 3) as server, Load(server.port, EMPTY, clients=30) as clients:
        for number in range(3):
            until(clients.went_on(), 30)
            before = [len(client.failures) for client in clients.clients]
            victim = server.workers[number]
            os.kill(victim, signal.SIGKILL)
            until(partial(_is_filled, server, 3, victim))
            until(clients.went_on(), 30)
            after = [len(client.failures) for client in clients.clients]
            lost = [now - then for now, then in zip(after, before, strict=True)]
            assert max(lost) <= 1, "nobody fails twice for one kill"
            assert 0 in lost, "clients of other workers notice nothing"
    assert clients.answers > 1000


def test_what_waits_for_a_killed_worker_is_answered_by_others(tmp_path: Path) -> None:
    with serving(tmp_path, 2) as server, contextlib.ExitStack() as stack:
        server.reached(2)
        victim = server.workers[0]
        os.kill(victim, signal.SIGSTOP)  # it takes nothing: half of what comes waits for it
        stack.callback(_kill, victim)
        connections = [http.client.HTTPConnection("127.0.0.1", server.port) for _ in range(40)]
        for connection in connections:
            stack.callback(connection.close)
            connection.request("POST", "/score", b"{}")
        os.kill(victim, signal.SIGKILL)
        pids = [json.loads(each.getresponse().read()) for each in connections]
        assert len(pids) == 40
        assert victim not in pids


def test_a_worker_that_leaks_is_replaced_under_load_without_a_failure(tmp_path: Path) -> None:
    with serving(tmp_path, 2, limit=250) as server, Load(server.port, EMPTY, 30) as clients:
        until(clients.went_on(), 30)
        before = server.workers
        for _ in range(2):
            server.ask(leak=300)
            until(clients.went_on(), 30)
        until(lambda: "is in its place" in server.log, 30)
        until(lambda: len(server.workers) == 2, 30)
        until(clients.went_on(), 30)
        assert server.workers != before
    assert clients.failures == []


def test_health_answers_at_once_while_every_worker_computes(tmp_path: Path) -> None:
    with serving(tmp_path, 2) as server, contextlib.ExitStack() as stack:
        probes = [
            stack.enter_context(httpx.Client(base_url=server.url, timeout=20)) for _ in range(16)
        ]
        pids = {probe.post("/score", json={}).json() for probe in probes}
        assert pids == set(server.workers), "the probes reach every worker"
        burners: dict[int, httpx.Client] = {}
        while len(burners) < 2:
            client = stack.enter_context(httpx.Client(base_url=server.url, timeout=20))
            burners.setdefault(client.post("/score", json={}).json(), client)
        busy = [
            threading.Thread(target=each.post, args=("/score",), kwargs={"json": {"burn": 2}})
            for each in burners.values()
        ]
        for thread in busy:
            thread.start()
        times = []
        while any(thread.is_alive() for thread in busy):
            for probe in probes:
                began = time.perf_counter()
                assert probe.get("/health/ready").status_code == 200
                times.append(time.perf_counter() - began)
        assert len(times) > 30
        assert sorted(times)[len(times) * 9 // 10] < 0.1


def test_readiness_is_off_on_kept_connections_while_what_has_begun_is_answered(
    tmp_path: Path,
) -> None:
    with serving(tmp_path, 1, FIELDPOST_SERVER_DRAIN_IDLE_S="5") as server:
        answers: list[Any] = []
        slow = threading.Thread(target=lambda: answers.append(server.ask(seconds=1.5)))
        kept = [http.client.HTTPConnection("127.0.0.1", server.port) for _ in range(2)]
        for each in kept:
            each.request("GET", "/health/ready")
            response = each.getresponse()
            assert (response.status, json.loads(response.read())) == (200, {"ready": True})
        slow.start()
        time.sleep(0.3)
        (worker,) = server.workers
        os.kill(server.process.pid, signal.SIGTERM)
        until(lambda: not _accepts(worker))
        kept[0].request("GET", "/health/ready")
        response = kept[0].getresponse()
        assert (response.status, json.loads(response.read())) == (503, {"ready": False})
        assert response.getheader("connection") == "close"
        kept[1].request("GET", "/health/live")
        assert kept[1].getresponse().status == 200
        slow.join()
        assert answers == [worker]
        assert server.process.wait(15) == 0
        for each in kept:
            each.close()


def test_the_command_line_tells_one_url(tmp_path: Path) -> None:
    script = tmp_path / "score.py"
    script.write_text(SCRIPT)
    command = [str(Path(sys.executable).with_name("fieldpost")), "serve", str(script)]
    arguments = ["--port", "0", "--workers", "2", "--json"]
    with subprocess.Popen(
        [*command, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            lines = iter(process.stdout.readline, "}\n")
            url = json.loads("".join([*lines, "}"]))["url"]
            pids = set[int]()
            while len(pids) < 2:
                pids.add(httpx.post(f"{url}/score", json={}).json())
            process.send_signal(signal.SIGTERM)
            out, err = process.communicate(timeout=20)
            assert process.returncode == 0
            assert out == ""
            assert err.count("Ready: http") == err.count(f"Ready: {url}")
            assert len([line for line in err.splitlines() if line.startswith("Ready: ")]) == 1
        finally:
            process.kill()


def _is_filled(server: Server, workers: int, gone: int) -> bool:
    return gone not in server.workers and len(server.workers) == workers


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _accepts(pid: int) -> bool:
    """Whether a process has a listening socket open."""
    listening = {
        line.split()[9]
        for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]
        if line.split()[3] == "0A"
    }
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            target = str(entry.readlink())
            if target.removeprefix("socket:[").removesuffix("]") in listening:
                return True
    return False

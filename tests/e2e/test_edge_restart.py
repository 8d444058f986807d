"""An agent that is started again: how long until a real model answers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from edge.agent.config import Config
from tests.support import real_packages
from tests.support.blob_source import Made
from tests.support.edge_site import EdgeSite

pytestmark = pytest.mark.timeout(200)

TARGET_S = 2.0
MOST_CPU_S = 1.0
ATTEMPTS = 3


@pytest.fixture(scope="module")
def iris(tmp_path_factory: pytest.TempPathFactory) -> Made:
    pytest.importorskip("sklearn")
    return real_packages.iris(tmp_path_factory.mktemp("iris"))


@pytest.fixture
def site(tmp_path: Path) -> Iterator[EdgeSite]:
    with EdgeSite(tmp_path).open() as site:
        yield site


def start(config: Config) -> subprocess.Popen[bytes]:
    state = Path(config.state)
    lines = [f'broker = "{config.broker}"', f'controller = "{config.controller}"', "drain_s = 2"]
    (state / "agent.toml").write_text("\n".join(lines))
    command = [sys.executable, "-m", "edge.agent.main", "run", "--state", str(state)]
    # As it is installed: with byte code, without which modules are compiled at each start.
    env = {name: text for name, text in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    env["PYTHONPYCACHEPREFIX"] = str(state.parent / "pycache")
    with (state / "agent.log").open("ab") as log:
        return subprocess.Popen(command, stderr=log, env=env)


def first_answer(port: int, begun: float) -> float:
    """Seconds until the model has answered a request for the first time."""
    while time.monotonic() < begun + 30:
        try:
            answer = httpx.post(
                f"http://127.0.0.1:{port}/score", json=real_packages.IRIS_ROW, timeout=20
            )
        except httpx.TransportError:
            time.sleep(0.005)
            continue
        assert answer.json()["predictions"] == [0]
        return time.monotonic() - begun
    raise AssertionError("nobody answers")


def processor_s(agent: int) -> float:
    """What the agent and its worker have taken of a processor."""
    tasks = Path(f"/proc/{agent}/task").glob("*/children")
    pids = [agent, *(int(pid) for children in tasks for pid in children.read_text().split())]
    spent = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        spent += int(fields[11]) + int(fields[12])
    return spent / os.sysconf("SC_CLK_TCK")


def test_a_killed_agent_answers_again_within_two_seconds(
    site: EdgeSite, tmp_path: Path, iris: Made
) -> None:
    """On a machine that does other work, the processor time of both processes stands for it.

    That is about half a second: the agent's imports and the worker's, half each.
    """
    config = site.enrol(tmp_path / "device")
    agent = start(config)
    try:
        site.wish(iris)
        port = site.wait_for("good", iris, 90).port
        site.broker.kill()  # nothing of it needs a network
        found = []
        for _ in range(ATTEMPTS):
            agent.send_signal(signal.SIGKILL)
            agent.wait(10)
            while is_answered(port):  # the worker before drains and goes
                time.sleep(0.01)
            begun = time.monotonic()
            agent = start(config)
            found.append((first_answer(port, begun), processor_s(agent.pid)))
        assert min(seconds for seconds, _ in found) < TARGET_S or (
            min(cpu for _, cpu in found) < MOST_CPU_S
        ), found
    finally:
        agent.terminate()
        agent.wait(20)


def is_answered(port: int) -> bool:
    try:
        httpx.get(f"http://127.0.0.1:{port}/health/live", timeout=5)
    except httpx.TransportError:
        return False
    return True

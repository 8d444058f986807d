"""The agent is killed at moments that nobody chose, while versions come one after another."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.agent.config import Config
from tests.faults.harness import LONG
from tests.support.edge_agents import require_verified
from tests.support.edge_site import EdgeSite, ask, stamped
from tests.support.server import until

KILLS = 200 if LONG else 8


@pytest.fixture
def site(tmp_path: Path) -> Iterator[EdgeSite]:
    with EdgeSite(tmp_path).open() as site:
        yield site


def start(config: Config) -> subprocess.Popen[bytes]:
    state = Path(config.state)
    lines = [f'broker = "{config.broker}"', f'controller = "{config.controller}"']
    (state / "agent.toml").write_text("\n".join([*lines, "keepalive_s = 5", "drain_s = 2"]))
    env = {name: text for name, text in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    env["PYTHONPYCACHEPREFIX"] = str(state.parent / "pycache")
    command = [sys.executable, "-m", "edge.agent.main", "run", "--state", str(state)]
    with (state / "agent.log").open("ab") as log:
        return subprocess.Popen(command, stderr=log, env=env)


def _answers(port: int, begins: str) -> bool:
    with contextlib.suppress(OSError):
        return ask(port).startswith(begins)
    return False


@pytest.mark.slow
@pytest.mark.timeout(180 + 10 * KILLS)
def test_after_every_kill_a_known_version_answers_and_the_last_one_in_the_end(
    site: EdgeSite, tmp_path: Path
) -> None:
    chance = random.Random(1606)
    config = site.enrol(tmp_path / "device")
    agent = start(config)
    versions = [stamped(f"v{number}") for number in range(KILLS + 1)]
    seen: set[str] = set()
    over = threading.Event()
    try:
        site.wish(versions[0])
        port = site.wait_for("good", versions[0]).port

        def watch() -> None:
            while not over.wait(0.02):
                with contextlib.suppress(OSError, ValueError, IndexError):
                    seen.add(ask(port).split()[0])

        watching = threading.Thread(target=watch)
        watching.start()
        for version in versions[1:]:
            site.wish(version)
            time.sleep(chance.uniform(0, 2.0))
            agent.send_signal(signal.SIGKILL)
            agent.wait(10)
            agent = start(config)
        state = site.wait_for("good", versions[-1], 60)
        # The report may be of the agent before the last kill, whose successor is just starting.
        until(lambda: _answers(state.port, f"v{KILLS} "), 20)
        assert state.port == port
    finally:
        over.set()
        agent.terminate()
        agent.wait(20)
    watching.join()
    require_verified(Path(config.state), versions)
    assert seen <= {f"v{number}" for number in range(KILLS + 1)}
    assert {"v0", f"v{KILLS}"} <= seen

"""One real agent: enrolled, over a TLS broker, with packages that run as processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Self

import pytest

from edge.agent.clock import Clock
from edge.agent.config import Config
from edge.agent.device import Device
from edge.agent.journal import Journal
from edge.agent.main import main
from edge.protocol.messages import Module, Soak
from tests.support.edge_site import EdgeSite, ask, package


@pytest.fixture
def site(tmp_path: Path) -> Iterator[EdgeSite]:
    with EdgeSite(tmp_path).open() as site:
        yield site


@pytest.fixture
def config(site: EdgeSite, tmp_path: Path) -> Config:
    return site.enrol(tmp_path / "device")


class Asking:
    """Asks a port without a break, on a connection each; every answer counts."""

    def __init__(self, port: int) -> None:
        self.answers: list[str] = []
        self.errors: list[Exception] = []
        self._port, self._over = port, threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.is_set():
            try:
                self.answers.append(ask(self._port).split()[0])
            except OSError as error:
                self.errors.append(error)


def test_versions_follow_each_other_and_no_request_is_lost(site: EdgeSite, config: Config) -> None:
    first, second = package("one"), package("two")
    with Device(config):
        site.wish(first)
        port = site.wait_for("good", first).port
        assert ask(port).startswith("one")
        with Asking(port) as asking:
            site.wish(second)
            assert site.wait_for("good", second).port == port
        assert not asking.errors
        assert set(asking.answers) == {"one", "two"}
        assert ask(port).startswith("two")
        site.wish(None)
        site.wait(lambda: site.reports[-1].modules["main"].phase == "stopped")
    site.wait(lambda: not site.statuses[-1].online)


@pytest.mark.parametrize("fault", [{"fail": "no such file"}, {"exit": 1}])
def test_what_does_not_start_never_answers(
    site: EdgeSite, config: Config, fault: dict[str, object]
) -> None:
    good, broken = package("good"), package("broken", **fault)
    with Device(config):
        site.wish(good)
        port = site.wait_for("good", good).port
        with Asking(port) as asking:
            site.wish(broken)
            state = site.wait_for("failed", good)
        assert state.failure is not None
        assert state.failure.phase == "probing"
        assert not asking.errors
        assert set(asking.answers) == {"good"}


def test_what_dies_while_it_soaks_goes_back(site: EdgeSite, config: Config) -> None:
    good, dying = package("good"), package("dying", crash_after=1.5)
    with Device(config):
        site.wish(good)
        port = site.wait_for("good", good).port
        site.wish(dying, soak=Soak(seconds=20))
        state = site.wait_for("reverted", good)
        assert state.failure is not None
        assert "SIGKILL" in state.failure.message
        assert ask(port).startswith("good")


def test_a_wish_that_nobody_signed_is_refused_and_reported(site: EdgeSite, config: Config) -> None:
    good = package("good")
    stranger = package("stranger")
    with Device(config):
        site.wish(good)
        site.wait_for("good", good)
        site.source.add(stranger)
        forged = Module(package=stranger.digest, release=9)
        site.publish(site.fleet.wish(9, forged, sources=(site.source.source,)))
        site.wait(lambda: site.reports[-1].refused is not None)
        assert site.reports[-1].refused is not None
        assert site.reports[-1].refused.code == "verification_failed"
        assert site.reports[-1].refused.generation == 9
        assert site.reports[-1].modules["main"].package == good.digest


def test_commands_are_done_once(site: EdgeSite, config: Config) -> None:
    good = package("good", noise=["hello from the worker"])
    with Device(config):
        site.wish(good)
        port = site.wait_for("good", good).port
        pid = ask(port).split()[1]
        site.command("logs", "a", module="main")
        site.wait(lambda: len(site.results) == 1)
        assert "hello from the worker" in site.results[0].output
        for _ in range(2):
            site.command("restart", "b", module="main")
        site.wait(lambda: len(site.results) == 3)
        assert [result.ok for result in site.results] == [True, True, True]
        site.wait(lambda: site.reports[-1].modules["main"].restarts == 1)
        assert ask(port).split()[1] != pid
        site.command("shell", "c", command=["true"])
        site.wait(lambda: len(site.results) == 4)
        assert site.results[3].failure is not None
        assert site.results[3].failure.code == "forbidden"


def start(config: Config) -> subprocess.Popen[bytes]:
    state = Path(config.state)
    lines = [f'broker = "{config.broker}"', f'controller = "{config.controller}"']
    (state / "agent.toml").write_text("\n".join([*lines, "keepalive_s = 5", "drain_s = 2"]))
    command = [sys.executable, "-m", "edge.agent.main", "run", "--state", str(state)]
    # As it is installed: with byte code, without which modules are compiled at each start.
    env = {name: text for name, text in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    env["PYTHONPYCACHEPREFIX"] = str(state.parent / "pycache")
    with (state / "agent.log").open("ab") as log:
        return subprocess.Popen(command, stderr=log, env=env)


def answers(port: int, text: str, seconds: float = 20) -> float:
    """Waits until a port answers so; how long that took."""
    begun = time.monotonic()
    while time.monotonic() < begun + seconds:
        try:
            if ask(port).startswith(text):
                return time.monotonic() - begun
        except OSError:
            time.sleep(0.02)
    raise AssertionError(f"port {port} does not answer {text}")


def test_a_killed_agent_serves_again_without_any_network(site: EdgeSite, config: Config) -> None:
    good = package("good")
    agent = start(config)
    try:
        site.wish(good)
        port = site.wait_for("good", good).port
        site.broker.kill()
        agent.send_signal(signal.SIGKILL)
        agent.wait(10)
        agent = start(config)
        assert answers(port, "good") < 10
        status = Path(f"/proc/{agent.pid}/status").read_text()
        resident = next(line for line in status.splitlines() if line.startswith("VmRSS"))
        assert int(resident.split()[1]) < 45 * 1024, resident
        site.broker.start()
        site.wait(lambda: site.reports[-1].boot == 2)
        assert os.waitpid(agent.pid, os.WNOHANG) == (0, 0)
    finally:
        agent.terminate()
        agent.wait(20)


def test_a_wish_that_was_put_back_is_told_and_what_runs_goes_on(
    site: EdgeSite, config: Config
) -> None:
    good = package("good")
    with Device(config):
        site.wish(good)
        port = site.wait_for("good", good).port
    with closing(Journal(Path(config.state))) as journal:
        kept = journal.note("desired.envelope")
        assert kept is not None
        earlier = site.fleet.wish(site.generation, modules={}).decode()
        journal.set_note("desired.envelope", earlier)
    site.broker.kill()
    with Device(config) as device:
        answers(port, "good")
        refused = device.agent.reported().refused
        assert refused is not None
        assert refused.code in {"rollback", "verification_failed"}


def test_a_device_that_joins_learns_what_time_it_is(
    site: EdgeSite, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    token, state = tmp_path / "token", tmp_path / "other"
    token.write_text(site.enrolment.claim("hall", "other"))
    site.clock.now += 7200  # the fleet's time: the device is two hours behind
    words = ["join", "--url", site._url, "--token-file", str(token), "--state", str(state)]
    assert main(words) == 0
    assert "7200 s behind the fleet's time" in capsys.readouterr().out
    with closing(Journal(state)) as journal:
        assert Clock(journal).behind_s() > 7100

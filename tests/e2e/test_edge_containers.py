"""Packages as containers on a device: real engines, asked over the module's own port."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import httpx
import pytest

from edge.agent import containers
from edge.agent.config import Config
from edge.agent.device import Device
from edge.protocol.messages import Soak
from tests.support import real_packages
from tests.support.blob_source import Made
from tests.support.edge_site import EdgeSite, ask, package
from tests.support.engines import RunningEngine

pytestmark = pytest.mark.timeout(300)

BASE = "fieldpost-test-base:latest"


@pytest.fixture(params=["docker", "podman"])
def engine(
    request: pytest.FixtureRequest, base_rootfs: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[RunningEngine]:
    """An engine with a base in it, which the device finds as its only one."""
    kind = request.param
    found: RunningEngine = request.getfixturevalue(f"{kind}_engine")
    if BASE.partition(":")[0] not in found.run("images"):
        found.run("import", str(base_rootfs), BASE, timeout_s=200)
    monkeypatch.setattr(containers, "_ENGINES", (kind,))
    monkeypatch.setenv("DOCKER_HOST" if kind == "docker" else "CONTAINER_HOST", found.host)
    yield found
    assert not ours(found, every=True)


def ours(engine: RunningEngine, *, every: bool = False) -> list[str]:
    """The containers of agents."""
    all_ = ["--all"] if every else []
    return engine.run("ps", *all_, "--quiet", "--filter", f"label={containers.LABEL}").split()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[EdgeSite]:
    with EdgeSite(tmp_path).open() as site:
        yield site


@pytest.fixture
def config(site: EdgeSite, tmp_path: Path) -> Config:
    return site.enrol(tmp_path / "device")


def wish(site: EdgeSite, made: Any, **settings: str) -> None:
    settings = {"base": BASE, **settings}
    site.wish(made, run="container", settings=settings, timeout_s=60.0, soak=Soak(seconds=1))


class Asking:
    """Asks a port without a break, on a connection each."""

    def __init__(self, port: int) -> None:
        self.answers: set[str] = set()
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
                self.answers.add(ask(self._port).split()[0])
            except OSError as error:
                self.errors.append(error)


def test_versions_follow_each_other_and_no_request_is_lost(
    site: EdgeSite, config: Config, engine: RunningEngine
) -> None:
    first, second = package("one"), package("two")
    with Device(config):
        wish(site, first, network="none", memory="64m", pids="64", cpus="0.5")
        port = site.wait_for("good", first, 90).port
        assert ask(port).startswith("one")
        [before] = ours(engine)
        told = engine.run("inspect", "--format", "{{json .HostConfig}}", before)
        assert '"Memory":67108864' in told
        assert '"ReadonlyRootfs":true' in told
        with Asking(port) as asking:
            wish(site, second, network="none")
            assert site.wait_for("good", second, 90).port == port
        assert not asking.errors
        assert asking.answers == {"one", "two"}
        [after] = ours(engine)
        assert after != before
    assert not ours(engine, every=True)


def test_what_dies_is_started_again_and_a_broken_one_never_answers(
    site: EdgeSite, config: Config, engine: RunningEngine
) -> None:
    good, broken = package("good", noise=["hello"]), package("broken", fail="no such file")
    with Device(config) as device:
        wish(site, good)
        port = site.wait_for("good", good, 90).port
        assert "hello" in device.agent.log("main").tail(1000)
        [before] = ours(engine)
        engine.run("kill", before)
        site.wait(lambda: site.reports[-1].modules["main"].restarts == 1, 60)
        assert ask(port).startswith("good")
        wish(site, broken)
        failure = site.wait_for("failed", good, 90).failure
        assert failure is not None
        assert "no such file" in failure.message
        assert ask(port).startswith("good")


def test_secrets_are_in_no_list_of_processes_and_no_record_of_the_engine(
    site: EdgeSite, config: Config, engine: RunningEngine
) -> None:
    made = package("good")
    with Device(config):
        wish(site, made, **{"env.TOKEN": "topmost-secret", "server.workers": "1"})
        port = site.wait_for("good", made, 90).port
        assert "topmost-secret" in ask(port, "/env")
        assert "topmost-secret" not in engine.run("inspect", *ours(engine))
        lists = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if alive(path)]
        assert not [line for line in lists if b"topmost-secret" in line]


def alive(path: Path) -> bool:
    try:
        return bool(path.read_bytes())
    except OSError:
        return False


def test_after_a_kill_the_agent_brings_its_containers_back_and_leaves_none(
    site: EdgeSite, config: Config, engine: RunningEngine
) -> None:
    made = package("good")
    state = Path(config.state)
    lines = [f'broker = "{config.broker}"', f'controller = "{config.controller}"', "drain_s = 2"]
    (state / "agent.toml").write_text("\n".join(lines))
    agent = start(state, engine)
    try:
        wish(site, made)
        port = site.wait_for("good", made, 90).port
        [before] = ours(engine)
        agent.send_signal(signal.SIGKILL)
        agent.wait(10)
        agent = start(state, engine)
        deadline = time.monotonic() + 60
        while before in ours(engine, every=True) or not answers(port):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert len(ours(engine, every=True)) == 1
    finally:
        agent.terminate()
        agent.wait(30)


def answers(port: int) -> bool:
    try:
        return ask(port).startswith("good")
    except OSError:
        return False


def start(state: Path, engine: RunningEngine) -> subprocess.Popen[bytes]:
    program = (
        "import sys; from edge.agent import containers, main; "
        f"containers._ENGINES = ({engine.kind!r},); sys.exit(main.main())"
    )
    command = [sys.executable, "-c", program, "run", "--state", str(state)]
    with (state / "agent.log").open("ab") as log:
        return subprocess.Popen(command, stderr=log, env=dict(os.environ))


@pytest.fixture(scope="module")
def iris(tmp_path_factory: pytest.TempPathFactory) -> Made:
    pytest.importorskip("sklearn")
    return real_packages.iris(tmp_path_factory.mktemp("iris"))


def test_a_real_model_with_its_environment(
    site: EdgeSite, config: Config, engine: RunningEngine, iris: Made
) -> None:
    with Device(config):
        wish(site, iris, memory="512m", network="none")
        port = site.wait_for("good", iris, 120).port
        url = f"http://127.0.0.1:{port}/score"
        answer = httpx.post(url, json=real_packages.IRIS_ROW, timeout=30).json()
        assert answer["predictions"] == [0]
        code = Path(config.state) / "unpacked" / containers.BYTE_CODE
        assert list(code.rglob("*.pyc"))  # the next start compiles nothing
        [container] = ours(engine)
        assert engine.run("exec", container, "id", "-u") == "65534"

"""A deploy to Docker that is killed at any of its steps, and run again.

Every call of the engine and every write of the registry is a step. After each kill the deployment
goes on answering, old or new; running the command again brings the new revision, and nothing of the
killed one is left.
"""

from __future__ import annotations

import http.client
from typing import TYPE_CHECKING

import pytest

from scoring.errors import FieldpostError
from serve import Workspace
from serve.engines import Engine
from serve.registry.deployments import DeploymentStore
from tests.faults import harness
from tests.support.crews import Clients, Yard

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.engines import RunningEngine

pytestmark = pytest.mark.timeout(600)

CALLS = ("create_volume", "create", "start", "signal", "set_restart", "stop", "remove")
STEPS: tuple[harness.Patch, ...] = (
    *((Engine, name) for name in CALLS),
    (DeploymentStore, "set_address"),
    (DeploymentStore, "activate"),
)
SAMPLE = 5


@pytest.fixture(scope="module")
def yard(
    tmp_path_factory: pytest.TempPathFactory, base_rootfs: Path, docker_engine: RunningEngine
) -> Iterator[Yard]:
    found = Yard(tmp_path_factory.mktemp("kills"), docker_engine, f"rootfs:{base_rootfs}")
    for answer in (1, 2):  # in the engine before anything is counted
        found.deploy("warm", found.package(answer))
    found.remove("warm")
    yield found
    found.workspace.close()


def again(yard: Yard, name: str, answer: int, **settings: object) -> None:
    """Deploys as a command of its own would."""
    package = yard.package(answer)
    with Workspace(yard.workspace.registry.location.blobs) as workspace:
        given = {"base": yard.base, "engine": yard.engine.host, **settings}
        texts = {key: str(text) for key, text in given.items()}
        workspace.deploy(name, package, target="docker", settings=texts)


def ask(url: str) -> bytes:
    host, _, port = url.removeprefix("http://").partition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=20)
    try:
        connection.request("POST", "/score", b"{}")
        return connection.getresponse().read()
    finally:
        connection.close()


def require_whole(yard: Yard, name: str, workers: int = 1) -> None:
    """One revision's containers, one volume, and records that say so."""
    view = yard.view(name)
    assert (view.state, view.note) == ("running", "")
    assert "pending" not in [each.state for each in view.revisions]
    assert len(yard.containers(name, "worker", every=True)) == workers
    assert len(yard.containers(name, "front", every=True)) == 1
    label = f"label=dev.fieldpost.deployment={name}"
    assert len(yard.engine.run("volume", "ls", "-q", "--filter", label).split()) == 1


def test_the_first_deploy_of_a_name(yard: Yard) -> None:
    names: list[str] = []

    def prepare() -> Callable[[], None]:
        names.append(f"first-{len(names)}")
        return lambda: again(yard, names[-1], 1)

    def check(step: int) -> None:
        again(yard, names[-1], 2)
        assert ask(yard.view(names[-1]).url) == b"2"
        require_whole(yard, names[-1])
        yard.remove(names[-1])

    harness.kill_in_fork(prepare, check, steps=STEPS, sample=SAMPLE)


def test_a_revision_in_place_of_another(yard: Yard) -> None:
    url = yard.deploy("second", yard.package(1)).url

    def prepare() -> Callable[[], None]:
        again(yard, "second", 1)
        return lambda: again(yard, "second", 2, workers=2)

    def check(step: int) -> None:
        assert ask(url) in (b"1", b"2")
        with Clients(url, 2) as clients:
            again(yard, "second", 2)
        assert clients.errors == []
        assert ask(url) == b"2"
        require_whole(yard, "second")

    harness.kill_in_fork(prepare, check, steps=STEPS, sample=SAMPLE)
    yard.remove("second")


def test_a_stop_and_a_start(yard: Yard) -> None:
    url = yard.deploy("third", yard.package(1)).url

    def stop_and_start() -> None:
        with Workspace(yard.workspace.registry.location.blobs) as workspace:
            workspace.deployments.stop("third")
            workspace.deployments.start("third")

    def check(step: int) -> None:
        with Workspace(yard.workspace.registry.location.blobs) as workspace:
            workspace.deployments.start("third")
        assert ask(url) == b"1"
        require_whole(yard, "third")

    harness.kill_in_fork(lambda: stop_and_start, check, steps=STEPS, sample=SAMPLE)
    yard.remove("third")


def test_an_engine_that_fails_in_the_middle(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every call that fails leaves the old revision answering, or the new one complete."""
    url = yard.deploy("fourth", yard.package(1)).url
    failures = 0
    for name in ("create", "start"):
        with monkeypatch.context() as patch:
            patch.setattr(Engine, name, _failing)
            with pytest.raises(FieldpostError, match="it is not a good day"):
                yard.deploy("fourth", yard.package(2))
        failures += 1
        assert ask(url) == b"1"
        require_whole(yard, "fourth")
    assert [each.state for each in yard.view("fourth").revisions] == [
        "active",
        *["failed"] * failures,
    ]
    yard.remove("fourth")


def _failing(*_: object) -> None:
    raise FieldpostError("it is not a good day")

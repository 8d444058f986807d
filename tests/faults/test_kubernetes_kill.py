"""The client is killed at any moment; the same command, run again, comes to the same end."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from serve.targets.kubernetes.access import KUBECONFIG
from tests.support.kubernetes_yard import ClusterYard, double_yard
from tests.support.local import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from serve.registry.records import Package
    from tests.support.kubernetes_double.api import Ask
    from tests.support.kubernetes_double.server import KubernetesDouble

pytestmark = pytest.mark.timeout(300)

MANY = 5


@pytest.fixture
def yard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ClusterYard]:
    """A workspace whose deployment `iris` answers with revision 1."""
    with double_yard(tmp_path, monkeypatch) as found:
        found.deploy("iris", found.package(1), replicas=1, env__COLOUR="blue")
        yield found


@pytest.fixture
def double(yard: ClusterYard) -> KubernetesDouble:
    """Its cluster."""
    assert yard.double is not None
    return yard.double


def _command(yard: ClusterYard, package: Package, *more: str) -> list[str]:
    settings = yard.settings(replicas=1, max_body_bytes=20_000)
    sets = [part for key, text in settings.items() for part in ("--set", f"{key}={text}")]
    where = ("--workspace", str(yard.folder / "workspace"))
    start = (sys.executable, "-c", "from serve.cli.main import main; main()")
    head = ("deploy", "iris", "--package", package.digest)
    return [*start, *head, "--target", "kubernetes", *sets, *where, *more]


class Executioner:
    """Kills a process at its Nth request to the cluster, before it is answered."""

    def __init__(self, double: KubernetesDouble) -> None:
        self.count = 0
        self.at = 0
        self.process: subprocess.Popen[bytes] | None = None
        self.lock = threading.Lock()
        double.fault = self

    def __call__(self, _ask: Ask) -> str | None:
        with self.lock:
            self.count += 1
            if self.process is not None and self.count == self.at:
                self.process.send_signal(signal.SIGKILL)
                self.process.wait()
                return "drop"
        return None

    def run(self, command: list[str], at: int) -> int:
        """Runs a command, killed at that request; its exit status, negative where it was."""
        self.count, self.at = 0, at
        environment = {**os.environ, KUBECONFIG: os.environ[KUBECONFIG]}
        pipe = subprocess.DEVNULL
        with subprocess.Popen(command, env=environment, stdout=pipe, stderr=pipe) as process:
            self.process = process
            status = process.wait(120)
            self.process = None
        return status


def test_a_killed_deploy_is_finished_by_the_next(
    yard: ClusterYard, double: KubernetesDouble
) -> None:
    executioner = Executioner(double)
    package = yard.package(2)
    assert executioner.run(_command(yard, package), at=0) == 0
    longest = executioner.count
    numbers = random.Random(os.environ.get("FIELDPOST_TEST_SEED", "11"))
    killed = 0
    for number in range(MANY):
        package = yard.package(f"round {number}")
        status = executioner.run(_command(yard, package), at=numbers.randint(1, longest))
        killed += status == -signal.SIGKILL
        _nobody_was_left_without_an_answer(yard)
    assert killed >= MANY - 1
    assert executioner.run(_command(yard, package), at=0) == 0
    _is_whole(yard, double)


def test_start_goes_back_to_what_is_wished(yard: ClusterYard, double: KubernetesDouble) -> None:
    executioner = Executioner(double)
    package = yard.package(2)

    def watching(ask: Ask) -> str | None:
        if ask.query.get("watch") == "true" and executioner.process is not None:
            executioner.process.send_signal(signal.SIGKILL)
        return None

    double.fault = watching
    assert executioner.run(_command(yard, package), at=0) == -signal.SIGKILL
    double.fault = lambda _ask: None
    view = eventually(lambda: (v := yard.view("iris")).state == "running" and v.note and v)
    assert "did not get to its end" in view.note
    assert view.revisions[-1].state == "pending"
    yard.workspace.deployments.start("iris")
    view = yard.view("iris")
    assert (view.state, view.revision, view.note) == ("running", 1, "")
    assert yard.names("Secret", "iris") == {"iris-env-r1"}


def _nobody_was_left_without_an_answer(yard: ClusterYard) -> None:
    """A ready pod is there at every moment: old ones go after new ones have come."""
    pods = yard.cluster.list("Pod", labels={"fieldpost.dev/deployment": "iris"}).items
    ready = [
        each
        for each in pods
        if any(
            one["type"] == "Ready" and one["status"] == "True"
            for one in each["status"].get("conditions") or ()
        )
    ]
    assert ready


def _is_whole(yard: ClusterYard, double: KubernetesDouble) -> None:
    """One revision answers, with its own objects and no others."""
    view = yard.view("iris")
    active = [each for each in view.revisions if each.state == "active"]
    assert [each.number for each in active] == [view.revision]
    assert (view.state, view.note) == ("running", "")
    wanted = str(view.revision)
    for plural in ("deployments.apps", "services", "configmaps", "poddisruptionbudgets.policy"):
        labels = [each["metadata"]["labels"] for each in double.items(plural).values()]
        assert [each["fieldpost.dev/revision"] for each in labels] == [wanted]
    assert double.items("secrets") == {}

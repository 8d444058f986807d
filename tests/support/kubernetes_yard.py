"""A workspace that deploys to a cluster: the double, or a real one by FIELDPOST_TEST_KUBECONFIG.

A real one pulls from where `kubernetes_registry` says; its images stand on FIELDPOST_TEST_BASE, or
on a system that is made here. Tests make a namespace of their own, in which only what keeps to the
restricted standard may run, and delete it.
"""

from __future__ import annotations

import contextlib
import os
import uuid
from typing import TYPE_CHECKING, Any

import pytest

from serve import Workspace
from serve.targets.kubernetes.access import KUBECONFIG
from serve.targets.kubernetes.client import Cluster
from serve.targets.kubernetes.labels import PACKAGE, package_value
from tests.support.crews import SCRIPT
from tests.support.kubernetes_double.controllers import READY, Outcome
from tests.support.kubernetes_double.server import KubernetesDouble
from tests.support.kubernetes_registry import place_for
from tests.support.small_packages import small_package

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from serve.registry.records import Package
    from serve.targets.kubernetes.kinds import Object
    from serve.workspace.deployments import DeploymentHandle, DeploymentView

TEST_KUBECONFIG = "FIELDPOST_TEST_KUBECONFIG"
TEST_BASE = "FIELDPOST_TEST_BASE"
REAL_TIMEOUT_S = 1800
"""For one test on a real cluster: pods take minutes to come on a slow one."""

_REAL_READY_S = 240
IMAGE = f"registry.example/team/iris@sha256:{'a' * 64}"


class ClusterYard:
    """A workspace and a cluster.

    Args:
        folder: Of the workspace and of scripts.
        double: The cluster, where it is none.
        base: For a real one: the base under images.
    """

    def __init__(self, folder: Path, double: KubernetesDouble | None, base: str = "") -> None:
        self.folder = folder
        self.double = double
        self.base = base
        self.workspace = Workspace(folder / "workspace")
        self.namespace = "default" if double else f"fieldpost-{uuid.uuid4().hex[:8]}"
        self.cluster = Cluster.connect(namespace=self.namespace)
        self._packages: dict[tuple[object, Outcome], Package] = {}

    def package(self, answer: object, outcome: Outcome = READY) -> Package:
        """A package whose pods become that."""
        if (answer, outcome) not in self._packages:
            made = self._small(answer, outcome) if self.double else self._real(answer, outcome)
            self._packages[answer, outcome] = made
        return self._packages[answer, outcome]

    def _small(self, answer: object, outcome: Outcome) -> Package:
        assert self.double is not None
        content = f"{answer} {outcome}".encode()
        folder = self.folder / f"package-{len(self._packages)}"
        folder.mkdir()
        made = small_package(self.workspace, folder, content=content)
        before, label = self.double.controllers.outcome, package_value(made.digest)

        def chosen(pod: Object) -> Outcome:
            ours = pod["metadata"]["labels"].get(PACKAGE) == label
            return outcome if ours else before(pod)

        self.double.controllers.outcome = chosen
        return made

    def _real(self, answer: object, outcome: Outcome) -> Package:
        init = {
            "ready": "pass",
            "crash": "; ".join(f"print({line!r}, flush=True)" for line in outcome.log)
            + f"; os._exit({outcome.exit_code})",
            "probe": "time.sleep(3600)",
            "oom": "hoard.append(b'x' * (4 << 30))",
        }[outcome.kind]
        script = self.folder / "score.py"
        script.write_text(SCRIPT.format(answer=repr(answer), init=init))
        return self.workspace.packages.build(script=script)

    def settings(self, **given: Any) -> dict[str, str]:
        """As `--set` has them; `env__NAME=…` stands for `env.NAME`."""
        usual: dict[str, Any] = {"namespace": self.namespace, "cpu": "50m", "leave_s": 0}
        if self.double:
            usual["image"] = IMAGE
        else:
            place = place_for(self.cluster)
            usual |= {"registry": place.name, "base": self.base, "ready_timeout_s": _REAL_READY_S}
            usual |= {"plain_http": "true"} if place.plain_http else {}
        texts = usual | given
        return {key.replace("__", "."): str(v) for key, v in texts.items() if v is not None}

    def registry(self) -> str:
        """Where the real cluster pulls; the test is skipped where there is none."""
        return place_for(self.cluster).name

    def deploy(
        self,
        name: str,
        package: Package,
        progress: Callable[[str], None] | None = None,
        *,
        force: bool = False,
        **settings: Any,
    ) -> DeploymentHandle:
        """As `fieldpost deploy` does."""
        return self.workspace.deploy(
            name,
            package,
            target="kubernetes",
            settings=self.settings(**settings),
            progress=progress,
            force=force,
        )

    def view(self, name: str) -> DeploymentView:
        """As `deployment show` has it."""
        return self.workspace.deployments.get(name)

    def names(self, kind: str, deployment: str) -> set[str]:
        """The objects of a kind that belong to a deployment."""
        labels = {"fieldpost.dev/deployment": deployment}
        return {each["metadata"]["name"] for each in self.cluster.list(kind, labels=labels).items}

    def close(self) -> None:
        """Stops and deletes all deployments; those of a real cluster go with their namespace."""
        for each in self.workspace.registry.deployments.list():
            if self.double is None and each.target == "kubernetes":
                continue
            with contextlib.suppress(Exception):
                self.workspace.deployments.stop(each.name)
                self.workspace.deployments.delete(each.name)
        self.cluster.close()
        self.workspace.close()


@contextlib.contextmanager
def double_yard(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ClusterYard]:
    """On the double."""
    with KubernetesDouble() as double:
        monkeypatch.setenv(KUBECONFIG, str(double.kubeconfig(folder / "kubeconfig")))
        yard = ClusterYard(folder, double)
        try:
            yield yard
        finally:
            yard.close()


def real_base(request: pytest.FixtureRequest) -> str:
    """The base under images for a real cluster; the test is skipped where there is neither."""
    require_cluster()
    return os.environ.get(TEST_BASE) or f"rootfs:{request.getfixturevalue('base_rootfs')}"


def require_cluster() -> str:
    """The kubeconfig of the real cluster; the test is skipped where there is none."""
    if not os.environ.get(TEST_KUBECONFIG):
        pytest.skip(f"{TEST_KUBECONFIG} names no cluster")
    return os.environ[TEST_KUBECONFIG]


@contextlib.contextmanager
def real_yard(folder: Path, monkeypatch: pytest.MonkeyPatch, base: str) -> Iterator[ClusterYard]:
    """On the cluster that FIELDPOST_TEST_KUBECONFIG names; skipped where it names none."""
    monkeypatch.setenv(KUBECONFIG, require_cluster())
    yard = ClusterYard(folder, None, base)
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    metadata = {"name": yard.namespace, "labels": labels}
    yard.cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
    try:
        yield yard
    finally:
        try:
            yard.cluster.delete("Namespace", yard.namespace)
        finally:
            yard.close()

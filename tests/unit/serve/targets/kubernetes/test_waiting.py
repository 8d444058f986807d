"""How long a rollout is waited for: with a clock of the test's own, on a stand-in for a cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from scoring.errors import DeploymentFailedError, UnreachableError
from serve.targets.kubernetes import waiting
from serve.targets.kubernetes.access import find_access
from serve.targets.kubernetes.client import Cluster
from serve.targets.kubernetes.rollout import View
from serve.targets.kubernetes.waiting import Place, Watch
from tests.support.kubernetes_double.server import KubernetesDouble

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

STARTING = View({"metadata": {}, "spec": {"replicas": 1}, "status": {}}, [])
QUOTA = {"type": "ReplicaFailure", "status": "True", "message": "exceeded quota: team"}
DONE: dict[str, Any] = {"metadata": {}, "spec": {"replicas": 0}, "status": {}}


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with KubernetesDouble() as double:
        config = double.kubeconfig(tmp_path / "kubeconfig")
        with Cluster(find_access(environment={"KUBECONFIG": str(config)})) as cluster:
            yield Place(cluster, "iris", {"app": "iris"})


def _wait(
    place: Place, monkeypatch: pytest.MonkeyPatch, looks: Mapping[int, View | UnreachableError]
) -> Callable[[], View]:
    """A wait of 60 s that sees, at these seconds, that."""
    moments, now = iter(looks.items()), [0]

    def look(_place: Place) -> View:
        now[0], seen = next(moments)
        if isinstance(seen, UnreachableError):
            raise seen
        return seen

    monkeypatch.setattr(waiting, "look", look)
    monkeypatch.setattr(waiting, "_LOOK_S", 0.01)
    return Watch(place, 2, 60, lambda _said: None, lambda: now[0]).until_ready


def test_what_does_not_get_on_is_given_up(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    wait = _wait(place, monkeypatch, {1: STARTING, 59: STARTING, 62: STARTING})
    with pytest.raises(DeploymentFailedError, match="0 of 1 pods were ready within 60 s"):
        wait()


def test_the_time_without_a_cluster_does_not_count(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone, done = UnreachableError("gone"), View(DONE, [])
    looks: Mapping[int, View | UnreachableError]
    looks = {1: STARTING, 10: gone, 100: gone, 200: STARTING, 240: STARTING, 245: done}
    assert _wait(place, monkeypatch, looks)() is done


def test_a_trouble_that_went_away_begins_anew(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = View({**STARTING.deployment, "status": {"conditions": [QUOTA]}}, [])
    looks = {1: full, 2: STARTING, 20: full, 30: full, 34: STARTING, 40: View(DONE, [])}
    assert _wait(place, monkeypatch, looks)().deployment is DONE
    with pytest.raises(DeploymentFailedError, match="quota leaves no room"):
        _wait(place, monkeypatch, {1: full, 10: full, 17: full})()

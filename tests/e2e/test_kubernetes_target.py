"""Packages rolled out to a cluster: the double over HTTP, and a real one where there is one.

What the double cannot tell (that a real kubelet runs the pods) the real cluster does; whatever both
can tell is asked of both by the same functions.
"""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING, Any

import pytest

from scoring.errors import (
    AlreadyExistsError,
    DeploymentFailedError,
    InUseError,
    NotFoundError,
    UsageError,
)
from serve.targets.kubernetes.faults import FieldConflictError
from tests.support.kubernetes_double.controllers import Outcome
from tests.support.kubernetes_yard import (
    REAL_TIMEOUT_S,
    ClusterYard,
    double_yard,
    real_base,
    real_yard,
)
from tests.support.local import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from serve.targets.base import Difference

pytestmark = pytest.mark.timeout(300)

CRASH = Outcome("crash", exit_code=3, log=("loading", "ValueError: no such colour"))


REAL = pytest.param("real", marks=pytest.mark.timeout(REAL_TIMEOUT_S))


@pytest.fixture(params=["double", REAL])
def yard(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[ClusterYard]:
    """A workspace on each cluster that there is."""
    if request.param == "double":
        with double_yard(tmp_path, monkeypatch) as found:
            yield found
        return
    with real_yard(tmp_path, monkeypatch, real_base(request)) as found:
        yield found


def _until(condition: Callable[[], Any]) -> Any:
    """Waits for what a slow cluster does in minutes."""
    return eventually(condition, 180)


def test_a_package_runs_is_shown_and_goes_again(yard: ClusterYard) -> None:
    said: list[str] = []
    handle = yard.deploy("iris", yard.package(1), said.append, replicas=2)
    assert handle.url == f"http://iris.{yard.namespace}.svc"
    view = yard.view("iris")
    assert (view.state, view.revision, view.restarts) == ("running", 1, 0)
    assert [each.state for each in view.workers] == ["ready", "ready"]
    assert any("made Deployment iris" in each for each in said)
    lines = list(yard.workspace.deployments.logs("iris"))
    assert lines
    assert all(" r1/" in each or '"r1/' in each for each in lines)
    with pytest.raises(InUseError):
        yard.workspace.deployments.delete("iris")
    yard.workspace.deployments.stop("iris")
    assert yard.view("iris").state == "stopped"
    assert yard.names("Service", "iris") == {"iris"}
    _until(lambda: yard.names("Pod", "iris") == set())
    assert yard.workspace.deployments.start("iris").url == handle.url
    assert yard.view("iris").state == "running"
    yard.workspace.deployments.stop("iris")
    yard.workspace.deployments.delete("iris")
    for kind in ("Deployment", "Service", "ConfigMap", "ServiceAccount", "NetworkPolicy"):
        assert yard.names(kind, "iris") == set()


def test_a_revision_takes_away_what_it_no_longer_has_and_nothing_else(yard: ClusterYard) -> None:
    other = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "iris-of-others", "labels": {"fieldpost.dev/deployment": "iris"}},
        "data": {"a": "b"},
    }
    yard.cluster.apply(other, manager="somebody")
    yard.deploy("iris", yard.package(1), env__COLOUR="blue", max_body_bytes=10_000)
    configs, secrets = yard.names("ConfigMap", "iris"), yard.names("Secret", "iris")
    assert secrets == {"iris-env-r1"}
    yard.deploy("iris", yard.package(1), max_body_bytes=20_000)
    assert yard.names("Secret", "iris") == set()
    now = yard.names("ConfigMap", "iris")
    assert now & configs == {"iris-of-others"}
    assert len(now) == 2
    yard.workspace.deployments.stop("iris")
    yard.workspace.deployments.delete("iris")
    assert yard.names("ConfigMap", "iris") == {"iris-of-others"}
    yard.cluster.delete("ConfigMap", "iris-of-others")


def test_a_revision_that_crashes_says_why_and_the_one_before_goes_on(yard: ClusterYard) -> None:
    yard.deploy("iris", yard.package(1))
    before = {pod["metadata"]["uid"] for pod in yard.cluster.list("Pod").items}
    with pytest.raises(DeploymentFailedError, match=r"Revision 2 of 'iris'.* status 3") as caught:
        yard.deploy("iris", yard.package(2, CRASH), env__A="b", ready_timeout_s=90)
    assert "no such colour" in caught.value.detail
    view = yard.view("iris")
    assert (view.state, view.revision) == ("running", 1)
    assert [each.state for each in view.revisions] == ["active", "failed"]
    assert "status 3" in view.revisions[1].reason
    assert yard.names("Secret", "iris") == set()
    _until(lambda: _uids(yard) == before)


def _uids(yard: ClusterYard) -> set[str]:
    pods = yard.cluster.list("Pod").items
    return {each["metadata"]["uid"] for each in pods if "deletionTimestamp" not in each["metadata"]}


def test_a_first_revision_that_fails_leaves_nothing(yard: ClusterYard) -> None:
    with pytest.raises(DeploymentFailedError, match="no-such-secret") as caught:
        yard.deploy("iris", yard.package(1), env_secret="no-such-secret", ready_timeout_s=20)
    assert "Make what it names" in caught.value.hint
    assert yard.names("Deployment", "iris") == set()
    assert yard.names("Service", "iris") == set()
    assert yard.view("iris").revisions[-1].state == "failed"


def test_no_node_for_a_pod(yard: ClusterYard) -> None:
    package = yard.package(1)
    if yard.double:
        yard.double.pods_become(Outcome("unschedulable", "0/3 nodes: 3 Insufficient cpu."))
    with pytest.raises(DeploymentFailedError, match=r"No node takes the pod .*Insufficient cpu"):
        yard.deploy("iris", package, cpu="1000", ready_timeout_s=2 if yard.double else 30)


def test_fields_of_others_are_shown_and_taken_only_by_force(yard: ClusterYard) -> None:
    yard.deploy("iris", yard.package(1))
    theirs = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "iris"},
        "spec": {"revisionHistoryLimit": 7},
    }
    yard.cluster.apply(theirs, manager="gitops", force=True)
    with pytest.raises(FieldConflictError, match=r"\.spec\.revisionHistoryLimit \(gitops\)"):
        yard.deploy("iris", yard.package(2))
    assert yard.view("iris").revision == 1
    assert yard.cluster.get("Deployment", "iris")["spec"]["revisionHistoryLimit"] == 7
    yard.deploy("iris", yard.package(2), force=True)
    assert yard.cluster.get("Deployment", "iris")["spec"]["revisionHistoryLimit"] == 3


def test_a_stop_and_a_start_leave_to_others_what_they_own(yard: ClusterYard) -> None:
    yard.deploy("iris", yard.package(1), replicas=1)
    theirs = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "iris"},
        "spec": {"revisionHistoryLimit": 7, "replicas": 2},
    }
    yard.cluster.apply(theirs, manager="gitops", force=True)
    yard.workspace.deployments.stop("iris")
    assert yard.view("iris").state == "stopped"
    yard.workspace.deployments.start("iris")
    assert yard.view("iris").state == "running"
    found = yard.cluster.get("Deployment", "iris")["spec"]
    assert (found["replicas"], found["revisionHistoryLimit"]) == (1, 7)
    # Asking for a number of pods is asking for it, whoever has set it.
    yard.cluster.apply({**theirs, "spec": {"replicas": 3}}, manager="kubectl", force=True)
    with pytest.raises(FieldConflictError, match=r"revisionHistoryLimit \(gitops\)"):
        yard.workspace.deployments.scale("iris", 2)
    yard.cluster.apply({**theirs, "spec": {}}, manager="gitops")
    yard.workspace.deployments.scale("iris", 2)
    assert yard.cluster.get("Deployment", "iris")["spec"]["replicas"] == 2


def test_what_others_add_stays(yard: ClusterYard) -> None:
    yard.deploy("iris", yard.package(1))
    theirs = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "iris", "annotations": {"example.com/dns": "iris.example"}},
    }
    yard.cluster.apply(theirs, manager="external-dns")
    yard.deploy("iris", yard.package(2))
    found = yard.cluster.get("Service", "iris")["metadata"]["annotations"]
    assert found["example.com/dns"] == "iris.example"


def test_objects_of_others_are_never_taken(yard: ClusterYard) -> None:
    theirs = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "iris"},
        "spec": {"selector": {"app": "theirs"}, "ports": [{"port": 80}]},
    }
    yard.cluster.apply(theirs, manager="kubectl")
    with pytest.raises(AlreadyExistsError, match=r"Service iris .* not of this deployment"):
        yard.deploy("iris", yard.package(1), force=True)
    assert yard.cluster.get("Service", "iris")["spec"]["selector"] == {"app": "theirs"}
    assert yard.names("Deployment", "iris") == set()
    yard.cluster.delete("Service", "iris")


def test_scaling_makes_no_new_revision_and_stays(yard: ClusterYard) -> None:
    yard.deploy("iris", yard.package(1), replicas=1)
    before = _uids(yard)
    yard.workspace.deployments.scale("iris", 3)
    view = yard.view("iris")
    assert (len(view.workers), view.revision, len(view.revisions)) == (3, 1, 1)
    assert before < _uids(yard)
    yard.deploy("iris", yard.package(2))
    _until(lambda: len(yard.view("iris").workers) == 3)
    yard.workspace.deployments.stop("iris")
    with pytest.raises(UsageError, match="does not run"):
        yard.workspace.deployments.scale("iris", 2)
    yard.workspace.deployments.start("iris")
    _until(lambda: len(yard.view("iris").workers) == 3)
    yard.deploy("iris", yard.package(2), replicas=1)
    _until(lambda: len(yard.view("iris").workers) == 1)


def test_a_scaler_takes_the_number_of_pods_over_and_gives_it_back(yard: ClusterYard) -> None:
    yard.deploy("iris", yard.package(1), replicas=3)
    yard.deploy("iris", yard.package(1), replicas=2, max_replicas=4)
    assert yard.cluster.get("Deployment", "iris")["spec"]["replicas"] in (2, 3)
    _scale_as_a_controller(yard, 4)
    yard.deploy("iris", yard.package(2), replicas=2, max_replicas=4)
    assert yard.cluster.get("Deployment", "iris")["spec"]["replicas"] == 4
    with pytest.raises(UsageError, match="A scaler sets the number"):
        yard.workspace.deployments.scale("iris", 1)
    yard.deploy("iris", yard.package(2), replicas=1)
    assert yard.names("HorizontalPodAutoscaler", "iris") == set()
    assert yard.cluster.get("Deployment", "iris")["spec"]["replicas"] == 1


def test_a_deployment_with_a_scaler_starts_again_with_pods(yard: ClusterYard) -> None:
    yard.deploy("iris", yard.package(1), replicas=2, max_replicas=4)
    _scale_as_a_controller(yard, 3)
    yard.workspace.deployments.stop("iris")
    assert yard.names("HorizontalPodAutoscaler", "iris") == set()
    yard.workspace.deployments.start("iris")
    # An autoscaler never gives the first pod.
    assert yard.cluster.get("Deployment", "iris")["spec"]["replicas"] == 2
    assert yard.names("HorizontalPodAutoscaler", "iris") == {"iris"}
    _scale_as_a_controller(yard, 3)
    yard.deploy("iris", yard.package(2), replicas=2, max_replicas=4)
    assert yard.cluster.get("Deployment", "iris")["spec"]["replicas"] == 3


def test_a_scaler_of_others_is_left_to_its_work(yard: ClusterYard) -> None:
    yard.deploy("iris", yard.package(1), replicas=1)
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "iris"}
    scaler = {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "theirs"},
        "spec": {"scaleTargetRef": target, "minReplicas": 1, "maxReplicas": 3},
    }
    yard.cluster.apply(scaler, manager="somebody")
    with pytest.raises(UsageError, match="somebody else's"):
        yard.workspace.deployments.scale("iris", 3)
    yard.workspace.deployments.stop("iris")
    yard.workspace.deployments.start("iris")
    assert yard.cluster.get("Deployment", "iris")["spec"]["replicas"] == 1


def _scale_as_a_controller(yard: ClusterYard, count: int) -> None:
    """As the autoscaler of a cluster does, which tests cannot give a reason to."""
    kind = yard.cluster
    kind.patch("Deployment", "iris", {"spec": {"replicas": count}})


def test_a_rollback_is_a_new_revision_with_the_old_image(yard: ClusterYard) -> None:
    yard.deploy("iris", yard.package(1))
    first = _image(yard)
    yard.deploy("iris", yard.package(2))
    yard.workspace.deployments.rollback("iris")
    view = yard.view("iris")
    assert (view.state, view.revision, view.revisions[-1].rollback_of) == ("running", 3, 1)
    assert _image(yard) == first


def _image(yard: ClusterYard) -> str:
    pod = yard.cluster.get("Deployment", "iris")["spec"]["template"]["spec"]
    return str(pod["containers"][0]["image"])


def test_differences_are_those_of_the_cluster(yard: ClusterYard) -> None:
    settings = yard.settings(env__COLOUR="blue")
    deployments, package = yard.workspace.deployments, yard.package(1)
    found = deployments.difference("iris", package, target="kubernetes", settings=settings)
    assert {each.change for each in found} == {"create"}
    assert yard.names("ServiceAccount", "iris") == set()
    assert "blue" not in json.dumps([each.lines for each in found])
    yard.deploy("iris", package, env__COLOUR="blue")
    found = deployments.difference("iris", package, target="kubernetes", settings=settings)
    assert {each.change for each in found} == {"none"}
    settings = yard.settings(env__COLOUR="green")
    found = deployments.difference("iris", package, target="kubernetes", settings=settings)
    changes = {each.object: each.change for each in found}
    assert changes["Secret iris-env-r2"] == "create"
    assert changes["Secret iris-env-r1"] == "delete"
    assert told_of(found) == {
        "fieldpost.dev/revision: '1'",
        "fieldpost.dev/revision: '2'",
        "name: iris-env-r1",
        "name: iris-env-r2",
    }


def test_what_somebody_changed_is_a_difference_of_the_same_deploy(yard: ClusterYard) -> None:
    package = yard.package(1)
    yard.deploy("iris", package)
    theirs = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "iris"},
        "spec": {"template": {"spec": {"terminationGracePeriodSeconds": 7}}},
    }
    yard.cluster.apply(theirs, manager="kubectl", force=True)
    found = yard.workspace.deployments.difference(
        "iris", package, target="kubernetes", settings=yard.settings(), force=True
    )
    assert any("terminationGracePeriodSeconds" in line for line in told_of(found))


def told_of(found: Sequence[Difference]) -> set[str]:
    """What changes of the Deployment, line by line."""
    lines = next(each.lines for each in found if each.object == "Deployment iris")
    return {line[1:].strip().replace('"', "'") for line in lines if line[0] in "+-"}


def test_a_preview_needs_nothing_and_hides_secrets(yard: ClusterYard) -> None:
    settings = yard.settings(env__COLOUR="blue")
    deployments = yard.workspace.deployments
    found = deployments.preview("iris", yard.package(1), target="kubernetes", settings=settings)
    assert found is not None
    kinds = [each["kind"] for each in found]
    assert kinds[0] == "ServiceAccount"
    assert "Deployment" in kinds
    secret = next(each for each in found if each["kind"] == "Secret")
    assert secret["data"] == {"COLOUR": "***"}
    assert copy.deepcopy(found) == found


def test_a_namespace_that_is_not_there(yard: ClusterYard) -> None:
    with pytest.raises(NotFoundError, match="no namespace 'not-there'") as caught:
        yard.deploy("iris", yard.package(1), namespace="not-there")
    assert "kubectl create namespace not-there" in caught.value.hint


def test_a_deployment_that_runs_does_not_come_up_elsewhere(yard: ClusterYard) -> None:
    yard.deploy("iris", yard.package(1))
    with pytest.raises(UsageError, match="runs in the namespace"):
        yard.deploy("iris", yard.package(1), namespace="kube-system")
    assert yard.view("iris").state == "running"


def test_a_deployment_that_somebody_deleted_is_brought_back(yard: ClusterYard) -> None:
    yard.deploy("iris", yard.package(1))
    yard.cluster.delete("Deployment", "iris")
    _until(lambda: yard.cluster.find("Deployment", "iris") is None)
    view = yard.view("iris")
    assert view.state == "down"
    assert "deployment start iris" in view.note
    yard.workspace.deployments.start("iris")
    assert yard.view("iris").state == "running"

"""What goes wrong in a cluster and on the way to it: each with its message, on the double."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest

from scoring.errors import (
    DeploymentFailedError,
    FieldpostError,
    NotFoundError,
    TargetError,
    UnreachableError,
    UsageError,
)
from serve.targets.kubernetes import client
from serve.targets.kubernetes.access import KUBECONFIG
from serve.targets.kubernetes.faults import BusyError, ClusterError, DeniedError, TerminatingError
from tests.support.kubernetes_double.answers import StatusError
from tests.support.kubernetes_double.controllers import READY, Outcome
from tests.support.kubernetes_yard import ClusterYard, double_yard
from tests.support.local import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from serve.targets.kubernetes.kinds import Kind, Object
    from tests.support.kubernetes_double.api import Ask
    from tests.support.kubernetes_double.server import KubernetesDouble

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def yard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ClusterYard]:
    """A workspace whose deployment `iris` answers with revision 1."""
    with double_yard(tmp_path, monkeypatch) as found:
        found.deploy("iris", found.package(1), replicas=1)
        yield found


@pytest.fixture
def double(yard: ClusterYard) -> KubernetesDouble:
    """Its cluster."""
    assert yard.double is not None
    return yard.double


def _answers(yard: ClusterYard, revision: int = 1) -> None:
    """The revision goes on answering, and nothing of another is left."""
    view = eventually(lambda: (v := yard.view("iris")).state == "running" and v)
    assert view.revision == revision
    assert yard.names("Secret", "iris") == set()


POD_FAILURES = {
    "cannot pull the image: .*manifest unknown": (
        Outcome("image", 'Back-off pulling image "x": ErrImagePull: manifest unknown'),
        "pull_secret=NAME",
    ),
    "not for the platform of the node": (
        Outcome("image", "Back-off: ErrImagePull: no match for platform in manifest: not found"),
        "--platform",
    ),
    "ended with status 9": (Outcome("crash", exit_code=9, log=("farewell",)), "log says why"),
    "needs more memory": (Outcome("oom"), "memory_limit"),
    "for another platform.*exec format error": (
        Outcome("crash", exit_code=255, log=("exec /usr/bin/python3: exec format error",)),
        "--platform",
    ),
    "No node takes the pod .*Insufficient cpu": (Outcome("unschedulable"), "node that fits"),
    "probe failed: HTTP 503": (
        Outcome("probe", "Readiness probe failed: HTTP 503"),
        "ready_timeout_s",
    ),
    'configmap "x" not found': (Outcome("config", 'configmap "x" not found'), "Make what it names"),
}


@pytest.mark.parametrize("words", list(POD_FAILURES))
def test_the_pod_s_own_reason_is_told(yard: ClusterYard, words: str) -> None:
    outcome, hint = POD_FAILURES[words]
    words = "probe failed: HTTP 503" if outcome.kind == "probe" else words
    with pytest.raises(DeploymentFailedError, match=words) as caught:
        yard.deploy("iris", yard.package(2, outcome), env__A="b", ready_timeout_s=1)
    assert hint in caught.value.hint
    assert outcome.exit_code != 9 or "farewell" in caught.value.detail
    _answers(yard)


def test_a_pod_that_is_killed_once_and_then_answers_is_no_failure(yard: ClusterYard) -> None:
    outcome = Outcome("completed", restarts=1)
    with pytest.raises(DeploymentFailedError, match="ended with status 0"):
        yard.deploy("iris", yard.package(2, outcome), ready_timeout_s=5)
    _answers(yard)


def test_a_quota_that_leaves_no_room(yard: ClusterYard, double: KubernetesDouble) -> None:
    double.controllers.quota = 1
    with pytest.raises(DeploymentFailedError, match=r"quota leaves no room.*limited: pods=1"):
        yard.deploy("iris", yard.package(2), env__A="b", ready_timeout_s=2)
    _answers(yard)


def test_pods_that_a_webhook_refuses(yard: ClusterYard, double: KubernetesDouble) -> None:
    double.controllers.refuse = 'admission webhook "policy.example" denied the request: no labels'
    with pytest.raises(DeploymentFailedError, match=r"makes no pod: .*no labels"):
        yard.deploy("iris", yard.package(2), env__A="b")
    double.controllers.refuse = ""
    _answers(yard)


def test_objects_that_a_webhook_refuses_change_nothing(
    yard: ClusterYard, double: KubernetesDouble
) -> None:
    def refuse(kind: Kind, _item: Object, _dry: bool) -> None:
        if kind.kind == "Deployment":
            raise StatusError(
                400, 'admission webhook "policy.example" denied the request: needs an owner'
            )

    double.store.admission.append(refuse)
    with pytest.raises(ClusterError, match=r"'policy.example' refuses it: needs an owner"):
        yard.deploy("iris", yard.package(2), env__A="b")
    _answers(yard)


def test_a_webhook_that_cannot_be_asked_beforehand_is_asked_in_earnest(
    yard: ClusterYard, double: KubernetesDouble
) -> None:
    def refuse(_kind: Kind, _item: Object, dry: bool) -> None:
        if dry:
            raise StatusError(400, 'admission webhook "w.example" does not support dry run')

    double.store.admission.append(refuse)
    yard.deploy("iris", yard.package(2))
    _answers(yard, 2)


def test_a_verb_that_is_not_allowed(yard: ClusterYard, double: KubernetesDouble) -> None:
    double.api.denied = lambda _user, verb, resource, _space: (
        (verb, resource)
        == (
            "patch",
            "networkpolicies",
        )
    )
    with pytest.raises(
        DeniedError, match=r"'developer' to patch networkpolicies\.networking\.k8s\.io"
    ) as caught:
        yard.deploy("iris", yard.package(2))
    assert "fieldpost target kubernetes rbac --namespace default" in caught.value.hint
    _answers(yard)


def test_events_that_may_not_be_read_are_not_needed(
    yard: ClusterYard, double: KubernetesDouble
) -> None:
    double.api.denied = lambda _user, _verb, resource, _space: resource == "events"
    with pytest.raises(DeploymentFailedError, match="ended with status 9"):
        yard.deploy("iris", yard.package(2, Outcome("crash", exit_code=9)))
    _answers(yard)


def test_a_login_that_has_expired(yard: ClusterYard, double: KubernetesDouble) -> None:
    tokens = dict(double.tokens)
    double.tokens.clear()
    with pytest.raises(DeniedError, match=r"does not accept the login.*401"):
        yard.deploy("iris", yard.package(2))
    view = yard.view("iris")
    assert view.state == "down"
    assert "401" in view.note
    double.tokens |= tokens
    _answers(yard)


def test_no_cluster_and_the_wrong_context(
    yard: ClusterYard, double: KubernetesDouble, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match="no context 'prod'") as caught:
        yard.deploy("iris", yard.package(2), context="prod")
    assert "double" in caught.value.hint
    monkeypatch.setenv(KUBECONFIG, str(tmp_path / "nothing-here"))
    with pytest.raises(TargetError, match="No cluster is configured"):
        yard.deploy("iris", yard.package(2))
    assert "No cluster is configured" in yard.view("iris").note
    monkeypatch.setenv(KUBECONFIG, str(double.kubeconfig(tmp_path / "again")))
    _answers(yard)


def test_a_context_that_leads_elsewhere_now(
    yard: ClusterYard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "kubeconfig"
    monkeypatch.setenv(KUBECONFIG, str(config))
    before = config.read_text()
    config.write_text(before.replace("http://127.0.0.1:", "http://127.0.0.2:"))
    view = yard.view("iris")
    assert view.state == "down"
    assert "leads to another cluster" in view.note
    config.write_text(before)


def test_an_api_server_that_goes_away_and_comes_back(
    yard: ClusterYard, double: KubernetesDouble
) -> None:
    said: list[str] = []
    asked = threading.Event()

    def fault(ask: Ask) -> str | None:
        if ask.query.get("watch") == "true" and not asked.is_set():
            asked.set()
        return None

    double.fault = fault
    double.controllers.paused.set()
    thread = threading.Thread(
        target=lambda: yard.deploy("iris", yard.package(2), said.append, ready_timeout_s=60)
    )
    thread.start()
    assert asked.wait(60)
    double.hang_up()
    double.controllers.paused.clear()
    double.listen()
    thread.join(90)
    assert not thread.is_alive()
    _answers(yard, 2)


def test_an_api_server_that_stays_away(
    yard: ClusterYard, double: KubernetesDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "PATIENCE_S", 1.0)
    package = yard.package(2)
    double.hang_up()
    view = yard.view("iris")
    assert (view.state, "does not answer" in view.note) == ("down", True)
    double.listen()
    double.fault = lambda _ask: "drop"
    with pytest.raises(UnreachableError, match="does not answer"):
        yard.deploy("iris", package)
    double.fault = lambda _ask: None
    _answers(yard)


def test_a_cluster_that_is_busy_for_a_moment(yard: ClusterYard, double: KubernetesDouble) -> None:
    many = iter(range(4))

    def fault(ask: Ask) -> str | None:
        number = next(many, None)
        if number is not None and number % 2:
            raise StatusError(503, "etcdserver: leader changed")
        return "drop" if number is not None else None

    double.fault = fault
    yard.deploy("iris", yard.package(2))
    _answers(yard, 2)


def test_a_webhook_that_does_not_answer(
    yard: ClusterYard, double: KubernetesDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "PATIENCE_S", 1.0)

    def fault(ask: Ask) -> str | None:
        if ask.method == "PATCH":
            why = 'Internal error occurred: failed calling webhook "w.example": refused'
            raise StatusError(500, why)
        return None

    double.fault = fault
    with pytest.raises(BusyError, match="failed calling webhook") as caught:
        yard.deploy("iris", yard.package(2))
    assert "'w.example' does not answer" in caught.value.hint
    double.fault = lambda _ask: None
    _answers(yard)


def test_watches_that_are_too_old(yard: ClusterYard, double: KubernetesDouble) -> None:
    def fault(ask: Ask) -> str | None:
        if ask.query.get("watch") == "true":
            double.store.forget_changes()
        return None

    double.fault = fault
    yard.deploy("iris", yard.package(2))
    _answers(yard, 2)


def test_a_namespace_that_is_being_deleted(yard: ClusterYard, double: KubernetesDouble) -> None:
    kind = double.store.kinds["namespaces"]
    space = double.store.get(kind, "", "default")
    double.store.put(kind, {**space, "status": {"phase": "Terminating"}}, "MODIFIED")
    with pytest.raises(TerminatingError, match="'default' is being deleted"):
        yard.deploy("iris", yard.package(2), env__A="b")
    double.store.put(kind, {**space, "status": {"phase": "Active"}}, "MODIFIED")
    _answers(yard)


def test_a_revision_that_cannot_be_brought_back_is_told(
    yard: ClusterYard, double: KubernetesDouble
) -> None:
    said: list[str] = []

    def fault(ask: Ask) -> str | None:
        if ask.method == "PATCH" and any("status 9" in each for each in said):
            raise StatusError(403, "no more changes today")
        return None

    double.fault = fault
    with pytest.raises(DeploymentFailedError, match="status 9"):
        yard.deploy("iris", yard.package(2, Outcome("crash", exit_code=9)), said.append)
    assert any("could not be brought back" in each for each in said)
    double.fault = lambda _ask: None
    view = yard.view("iris")
    assert view.revision == 1
    assert view.state == "degraded"
    yard.workspace.deployments.start("iris")
    _answers(yard)


def test_a_pod_that_dies_on_its_first_request_is_shown(
    yard: ClusterYard, double: KubernetesDouble
) -> None:
    kind = double.store.kinds["pods"]
    pod = next(iter(double.items("pods").values()))
    last = {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}
    container = {"name": "server", "ready": False, "restartCount": 1, "lastState": last}
    container["state"] = {"waiting": {"reason": "CrashLoopBackOff"}}
    status: dict[str, Any] = {"phase": "Running", "containerStatuses": [container]}
    double.controllers.outcome = lambda _pod: Outcome("oom")
    double.store.put(kind, {**pod, "status": status}, "MODIFIED")
    view = eventually(lambda: (v := yard.view("iris")).state == "failed" and v)
    assert "needs more memory" in view.note
    assert view.workers[0].state == "waiting"
    double.controllers.outcome = lambda _pod: READY


def test_a_pod_that_was_killed_by_a_request_and_runs_again_says_so(
    yard: ClusterYard, double: KubernetesDouble
) -> None:
    kind, pod = double.store.kinds["pods"], next(iter(double.items("pods").values()))
    status = pod["status"]
    killed = {"exitCode": 137, "reason": "OOMKilled", "finishedAt": "2026-01-01T00:00:00Z"}
    again = {"restartCount": 1, "lastState": {"terminated": killed}}
    status["containerStatuses"] = [{**status["containerStatuses"][0], **again}]
    double.controllers.paused.set()
    double.store.put(kind, {**pod, "status": status}, "MODIFIED")
    view = yard.view("iris")
    double.controllers.paused.clear()
    assert (view.state, view.restarts) == ("running", 1)
    assert "needs more memory than it may have. It has been started again." in view.note
    assert view.last_error is not None


def test_what_changed_under_the_cluster_s_hands_is_applied_again(
    yard: ClusterYard, double: KubernetesDouble
) -> None:
    many = iter(range(2))

    def fault(ask: Ask) -> str | None:
        if ask.method == "PATCH" and next(many, None) is not None:
            raise StatusError(
                409,
                'Operation cannot be fulfilled on resourcequotas "team": the object has been '
                "modified; please apply your changes to the latest version and try again",
            )
        return None

    double.fault = fault
    yard.deploy("iris", yard.package(2))
    _answers(yard, 2)


def test_lines_with_progress_bars_and_from_nodes_in_other_zones(
    yard: ClusterYard, double: KubernetesDouble
) -> None:
    (pod,) = double.items("pods")
    double.controllers.logs["default", pod] = [
        ("2026-01-01T01:00:00.123456789+01:00", "10%\r20%\rdone"),
        ("2026-01-01T00:00:01.000000000Z", "ready"),
    ]
    lines = list(yard.workspace.deployments.logs("iris"))
    name = pod.rpartition("-")[2]
    assert lines == [
        f"2026-01-01T00:00:00.123Z r1/{name} 10%\r20%\rdone",
        f"2026-01-01T00:00:01.000Z r1/{name} ready",
    ]


def test_logs_are_followed_over_revisions(yard: ClusterYard, double: KubernetesDouble) -> None:
    lines: list[str] = []
    stream = yard.workspace.deployments.logs("iris", follow=True)
    thread = threading.Thread(target=lambda: lines.extend(_until(stream, "r2/")), daemon=True)
    thread.start()
    eventually(lambda: any("/log" in each for each in double.requests))
    yard.deploy("iris", yard.package(2))
    thread.join(30)
    assert not thread.is_alive()
    assert [each.split(" ")[-1] for each in lines[:2]] == ["loading", "ready"]


def _until(stream: Iterator[str], word: str) -> Iterator[str]:
    for line in stream:
        yield line
        if word in line:
            return


def test_warnings_of_the_cluster_are_passed_on(yard: ClusterYard, double: KubernetesDouble) -> None:
    double.warnings.append("policy/v1beta1 is deprecated")
    said: list[str] = []
    yard.deploy("iris", yard.package(2), said.append)
    assert "The cluster warns: policy/v1beta1 is deprecated" in said


def test_errors_hold_no_secrets(yard: ClusterYard, double: KubernetesDouble) -> None:
    double.api.denied = lambda _user, verb, resource, _space: (
        (verb, resource)
        == (
            "patch",
            "secrets",
        )
    )
    with pytest.raises(FieldpostError) as caught:
        yard.deploy("iris", yard.package(2), env__PASSWORD="s3cret")
    assert "s3cret" not in f"{caught.value.to_dict()} {caught.value.detail}"


def test_a_stopped_deployment_stays_stopped_where_a_deploy_fails(
    yard: ClusterYard, double: KubernetesDouble
) -> None:
    yard.workspace.deployments.stop("iris")
    uid = double.items("services")["iris"]["metadata"]["uid"]
    with pytest.raises(DeploymentFailedError, match="status 9"):
        yard.deploy("iris", yard.package(2, Outcome("crash", exit_code=9)), env__A="b")
    assert yard.view("iris").state == "stopped"
    assert double.items("services")["iris"]["metadata"]["uid"] == uid
    assert yard.names("Secret", "iris") == set()
    yard.workspace.deployments.start("iris")
    _answers(yard)


def test_an_interrupted_deploy_is_taken_back(yard: ClusterYard, double: KubernetesDouble) -> None:
    def interrupt(sentence: str) -> None:
        if "pods ready" in sentence:
            raise KeyboardInterrupt

    double.pods_become(Outcome("probe"), revision=2)
    with pytest.raises(KeyboardInterrupt):
        yard.deploy("iris", yard.package(1), interrupt, env__A="b")
    assert yard.view("iris").revisions[-1].reason == "It was interrupted."
    _answers(yard)


def test_a_deployment_of_somebody_else_is_not_shown_as_ours(
    yard: ClusterYard, double: KubernetesDouble
) -> None:
    theirs = double.items("deployments.apps")["iris"]
    yard.cluster.delete("Deployment", "iris")
    theirs["metadata"] = {"name": "iris", "labels": {"app": "theirs"}}
    yard.cluster.create(theirs, manager="kubectl")
    assert yard.view("iris").state == "down"


def test_a_kind_that_the_cluster_does_not_know(yard: ClusterYard, double: KubernetesDouble) -> None:
    given: dict[str, Any] = {"gateway": "web", "hostname": "iris.example"}
    with pytest.raises(NotFoundError, match="HTTPRoute iris: it does not know that kind"):
        yard.deploy("iris", yard.package(2), env__A="b", **given)
    _answers(yard)
    double.store.extend()
    handle = yard.deploy("iris", yard.package(2), **given)
    assert handle.url == "http://iris.example"
    assert set(double.items("httproutes.gateway.networking.k8s.io")) == {"iris"}
    yard.deploy("iris", yard.package(2))
    assert double.items("httproutes.gateway.networking.k8s.io") == {}

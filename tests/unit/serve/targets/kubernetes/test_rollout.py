"""What the cluster says, read: without a cluster."""

from __future__ import annotations

from typing import Any

import pytest

from serve.targets.kubernetes import rollout
from serve.targets.kubernetes.rollout import Trouble, View


def _pod(
    name: str = "iris-abc-x1",
    revision: int = 2,
    *,
    ready: bool = False,
    waiting: dict[str, Any] | None = None,
    last: dict[str, Any] | None = None,
    restarts: int = 0,
    **more: Any,
) -> dict[str, Any]:
    container: dict[str, Any] = {"name": "server", "ready": ready, "restartCount": restarts}
    container["state"] = {"waiting": waiting} if waiting else {"running": {}}
    if last:
        container["lastState"] = {"terminated": last}
    conditions = [{"type": "Ready", "status": "True" if ready else "False"}]
    return {
        "metadata": {
            "name": name,
            "uid": name,
            "labels": {"fieldpost.dev/revision": str(revision)},
        },
        "status": {"conditions": conditions, "containerStatuses": [container], **more},
    }


def _deployment(wanted: int = 1, *, generation: int = 2, **status: Any) -> dict[str, Any]:
    return {
        "metadata": {"generation": generation, "labels": {"fieldpost.dev/revision": "2"}},
        "spec": {"replicas": wanted},
        "status": {"observedGeneration": 2, **status},
    }


def _trouble(*pods: dict[str, Any], events: list[dict[str, Any]] | None = None) -> Trouble | None:
    return rollout.trouble(View(_deployment(), pods, events or ()), 2)


DONE = {"replicas": 1, "updatedReplicas": 1, "availableReplicas": 1}


def test_a_rollout_is_complete_when_all_that_is_left_is_new_and_ready() -> None:
    view = View(_deployment(**DONE), [_pod(ready=True)])
    assert rollout.is_complete(view, 2)


@pytest.mark.parametrize(
    "view",
    [
        View(_deployment(generation=3, **DONE), [_pod(ready=True)]),
        View(_deployment(2, **DONE), [_pod(ready=True)]),
        View(_deployment(**DONE | {"replicas": 2}), [_pod(ready=True)]),
        View(_deployment(**DONE | {"availableReplicas": 0}), [_pod(ready=True)]),
        View(_deployment(**DONE), [_pod(ready=True, revision=1)]),
        View(_deployment(), []),
    ],
    ids=["not observed", "too few", "old ones left", "not available", "another", "nothing"],
)
def test_a_rollout_is_not_complete(view: View) -> None:
    assert not rollout.is_complete(view, 2)


def test_no_pods_at_all_may_be_what_is_wished() -> None:
    assert rollout.is_complete(View(_deployment(0), []), 2)


def test_counts() -> None:
    pods = [_pod("a", ready=True), _pod("b"), _pod("c", 1, ready=True)]
    assert rollout.count(View(_deployment(2), pods), 2) == (2, 2, 1, 1)


def test_ready_pods_and_those_of_other_revisions_are_no_trouble() -> None:
    crash = {"exitCode": 3, "reason": "Error"}
    assert _trouble(_pod(ready=True), _pod("b", 1, last=crash, restarts=4)) is None


@pytest.mark.parametrize(
    ("message", "sure"),
    [
        ('Back-off pulling image "x": ErrImagePull: manifest unknown', True),
        ("ErrImagePull: pull access denied, repository does not exist", True),
        ("ErrImagePull: dial tcp: i/o timeout", False),
        ('Back-off pulling image "x"', False),
    ],
)
def test_images_that_cannot_be_pulled(message: str, sure: bool) -> None:
    found = _trouble(_pod(waiting={"reason": "ImagePullBackOff", "message": message}))
    assert found is not None
    assert (found.key, found.patience_s == 0) == ("pull", sure)


def test_an_event_says_more_than_a_back_off() -> None:
    events = [
        {
            "involvedObject": {"uid": "iris-abc-x1"},
            "reason": "Failed",
            "message": 'Failed to pull image "x": rpc error: code = NotFound: not found',
        }
    ]
    waiting = {"reason": "ImagePullBackOff", "message": 'Back-off pulling image "x"'}
    found = _trouble(_pod(waiting=waiting), events=events)
    assert found is not None
    assert found.patience_s == 0
    assert "NotFound" in found.message


def test_the_first_attempt_to_pull_is_not_yet_sure() -> None:
    found = _trouble(_pod(waiting={"reason": "ErrImagePull", "message": "not found"}))
    assert found is not None
    assert found.patience_s is None


@pytest.mark.parametrize(
    ("last", "restarts", "reason", "sure"),
    [
        ({"exitCode": 1, "reason": "Error"}, 1, "", False),
        ({"exitCode": 1, "reason": "Error"}, 1, "CrashLoopBackOff", True),
        ({"exitCode": 1, "reason": "Error"}, 2, "", True),
        ({"exitCode": 3, "reason": "Error"}, 1, "", True),
        ({"exitCode": 137, "reason": "OOMKilled"}, 1, "", True),
    ],
)
def test_containers_that_end(last: dict[str, Any], restarts: int, reason: str, sure: bool) -> None:
    waiting = {"reason": reason} if reason else None
    found = _trouble(_pod(waiting=waiting, last=last, restarts=restarts))
    assert found is not None
    assert found.previous
    assert (found.pod, found.container) == ("iris-abc-x1", "server")
    assert (found.patience_s == 0) is sure


def test_a_container_that_has_just_ended_has_its_own_log() -> None:
    pod = _pod()
    container = pod["status"]["containerStatuses"][0]
    container["state"] = {"terminated": {"exitCode": 3, "reason": "Error"}}
    found = _trouble(pod)
    assert found is not None
    assert not found.previous


def test_a_container_that_got_ready_after_all_is_no_trouble() -> None:
    last = {"exitCode": 1, "reason": "Error"}
    assert _trouble(_pod(ready=True, last=last, restarts=1)) is None


@pytest.mark.parametrize("code", [0, 137, 143])
def test_a_probe_that_failed_is_the_reason_of_a_kill(code: int) -> None:
    events = [
        {
            "involvedObject": {"uid": "iris-abc-x1"},
            "reason": "Unhealthy",
            "message": "Startup probe failed: connection refused",
        }
    ]
    waiting = {"reason": "CrashLoopBackOff"}
    pod = _pod(waiting=waiting, last={"exitCode": code}, restarts=3)
    found = _trouble(pod, events=events)
    assert found is not None
    assert "Startup probe failed: connection refused" in found.message


def test_an_image_for_another_processor() -> None:
    said = "exec /usr/bin/python3: exec format error"
    found = _trouble(_pod(last={"exitCode": 255, "message": said}, restarts=1))
    assert found is not None
    assert found.key == "platform"


def test_sidecars_and_init_containers_count() -> None:
    pod = _pod()
    pod["status"]["initContainerStatuses"] = [
        {
            "name": "mesh",
            "state": {"waiting": {"reason": "CrashLoopBackOff"}},
            "lastState": {"terminated": {"exitCode": 1}},
        }
    ]
    found = _trouble(pod)
    assert found is not None
    assert found.container == "mesh"


def test_what_is_sure_comes_before_what_may_pass() -> None:
    unschedulable = _pod("a", conditions=[{"type": "PodScheduled", "reason": "Unschedulable"}])
    crashed = _pod("b", last={"exitCode": 3}, restarts=1)
    found = _trouble(unschedulable, crashed)
    assert found is not None
    assert found.key == "ended 3"


def test_pods_that_cannot_be_made() -> None:
    failure = {
        "type": "ReplicaFailure",
        "status": "True",
        "message": 'pods "x" is forbidden: exceeded quota: team',
    }
    view = View(_deployment(conditions=[failure]), [])
    found = rollout.trouble(view, 2)
    assert found is not None
    assert found.key == "quota"
    old = View(_deployment(generation=9, conditions=[failure]), [])
    assert rollout.trouble(old, 2) is None


def test_a_rollout_that_the_cluster_gave_up() -> None:
    late = {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}
    assert rollout.is_stuck(_deployment(conditions=[late]))
    assert not rollout.is_stuck(_deployment(generation=3, conditions=[late]))


def test_pods_on_their_way_out_count_no_more() -> None:
    pod = _pod(ready=True)
    pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert not rollout.is_ready(pod)
    assert rollout.count(View(_deployment(), [pod]), 2).made == 0


def test_mounts_that_wait() -> None:
    events = [
        {
            "involvedObject": {"uid": "iris-abc-x1"},
            "reason": "FailedMount",
            "message": 'MountVolume.SetUp failed: secret "keys" not found',
        }
    ]
    found = _trouble(_pod(waiting={"reason": "ContainerCreating"}), events=events)
    assert found is not None
    assert 'secret "keys" not found' in found.message


def test_evicted_pods_count_no_more_and_are_told() -> None:
    evicted = _pod(phase="Failed", reason="Evicted", message="The node was low on memory.")
    assert rollout.count(View(_deployment(), [evicted]), 2).made == 0
    assert not rollout.runs(evicted)
    found = _trouble(evicted)
    assert found is not None
    assert "Evicted: The node was low on memory" in found.message

"""What the cluster says, read: without a cluster."""

from __future__ import annotations

from typing import Any

import pytest

from serve.targets.kubernetes import rollout, troubles
from serve.targets.kubernetes.rollout import View
from serve.targets.kubernetes.troubles import Trouble


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
    return troubles.trouble(View(_deployment(), pods, events or ()), 2)


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
    found = troubles.trouble(view, 2)
    assert found is not None
    assert found.key == "quota"
    old = View(_deployment(generation=9, conditions=[failure]), [])
    assert troubles.trouble(old, 2) is None


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


@pytest.mark.parametrize(
    ("message", "sure"),
    [
        (f'Back-off pulling image "r/a@sha256:{"401" * 21}a": i/o timeout', False),
        ('failed to resolve reference "r/unknown-team/invalid:1": i/o timeout', False),
        ("Get https://r/v2/denied/manifests/x: EOF", False),
        ("unexpected status code 401", True),
        ("rpc error: code = NotFound desc = x", True),
    ],
)
def test_names_and_digests_of_images_say_nothing_of_a_pull(message: str, sure: bool) -> None:
    found = _trouble(_pod(waiting={"reason": "ImagePullBackOff", "message": message}))
    assert found is not None
    assert (found.patience_s == 0) is sure


@pytest.mark.parametrize(
    ("reason", "message", "passes"),
    [
        ("CreateContainerConfigError", 'secret "x" not found', False),
        ("CreateContainerConfigError", "failed to sync secret cache: timed out waiting", True),
        ("CreateContainerError", "context deadline exceeded", True),
        ("CreateContainerError", 'name "x" is reserved for "y"', True),
    ],
)
def test_what_a_busy_node_says_may_pass(reason: str, message: str, passes: bool) -> None:
    found = _trouble(_pod(waiting={"reason": reason, "message": message}))
    assert found is not None
    assert (found.patience_s is None) is passes


def test_a_pod_that_was_evicted_says_so_and_not_how_its_container_ended() -> None:
    pod = _pod(phase="Failed", reason="Evicted", message="The node was low on resource: memory.")
    ended = {"exitCode": 137, "reason": "ContainerStatusUnknown"}
    pod["status"]["containerStatuses"][0]["state"] = {"terminated": ended}
    found = _trouble(pod)
    assert found is not None
    assert "Evicted: The node was low on resource: memory." in found.message


def test_a_secret_that_is_to_be_mounted_and_is_not_there_is_not_waited_for_long() -> None:
    events = [
        {
            "involvedObject": {"uid": "iris-abc-x1"},
            "reason": "FailedMount",
            "message": 'MountVolume.SetUp failed for volume "tls" : secret "iris-tls" not found',
        }
    ]
    found = _trouble(_pod(waiting={"reason": "ContainerCreating"}), events=events)
    assert found is not None
    assert found.patience_s is not None
    assert 'secret "iris-tls" not found' in found.message


@pytest.mark.parametrize(
    ("condition", "words"),
    [
        ({"type": "PodScheduled", "reason": "SchedulingGated", "message": "kueue"}, "gate: kueue"),
        (
            {"type": "Ready", "status": "False", "reason": "ReadinessGatesNotReady"},
            "is held back",
        ),
    ],
)
def test_what_holds_a_pod_back_is_told(condition: dict[str, Any], words: str) -> None:
    found = _trouble(_pod(conditions=[condition]))
    assert found is not None
    assert words in found.message
    assert found.patience_s is None


def test_a_quota_that_wants_to_be_told_a_limit() -> None:
    said = 'pods "x" is forbidden: failed quota: team: must specify limits.cpu for: server'
    failure = {"type": "ReplicaFailure", "status": "True", "message": said}
    found = troubles.trouble(View(_deployment(conditions=[failure]), []), 2)
    assert found is not None
    assert "cpu_limit" in found.hint


def test_the_newest_event_counts_wherever_its_time_is_written() -> None:
    def event(message: str, **time: Any) -> dict[str, Any]:
        about = {"involvedObject": {"uid": "iris-abc-x1"}, "reason": "Unhealthy"}
        return {**about, "message": message, **time}

    events = [
        event("newest", lastTimestamp=None, eventTime="2026-01-01T00:00:03.5Z"),
        event("older", series={"lastObservedTime": "2026-01-01T00:00:02Z"}),
        event("oldest", lastTimestamp="2026-01-01T00:00:01Z"),
    ]
    found = _trouble(_pod(), events=events)
    assert found is not None
    assert "newest" in found.message


def test_a_mesh_that_comes_first_does_not_hide_that_the_image_is_fetched() -> None:
    pod = _pod(waiting={"reason": "PodInitializing"})
    assert rollout.is_pulling(View(_deployment(), [pod]), 2)


def test_a_pod_that_was_killed_and_runs_again_is_told() -> None:
    killed = {"exitCode": 137, "reason": "OOMKilled", "finishedAt": "2026-01-01T00:00:01Z"}
    view = View(_deployment(), [_pod(ready=True, last=killed, restarts=1)])
    found = troubles.restart(view, 2)
    assert found is not None
    assert "needs more memory" in found.message
    assert "started again" in found.message
    assert troubles.restart(view, 1) is None
    assert troubles.restart(View(_deployment(), [_pod(ready=True)]), 2) is None

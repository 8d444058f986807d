"""How far a rollout is: the cluster's own words, read. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from serve.targets.kubernetes import labels
from serve.targets.kubernetes.kinds import Object

if TYPE_CHECKING:
    from collections.abc import Sequence


class View(NamedTuple):
    """What the cluster says at one moment.

    Attributes:
        deployment: The Deployment.
        pods: Of all revisions.
        events: Warnings about pods; empty where they may not be read.
        sets: The ReplicaSets.
    """

    deployment: Object
    pods: Sequence[Object]
    events: Sequence[Object] = ()
    sets: Sequence[Object] = ()


class Count(NamedTuple):
    """How many pods there are, and are to be.

    Attributes:
        wanted: In the end.
        made: Of the new revision.
        ready: Of those.
        old: Of other revisions, still there.
    """

    wanted: int
    made: int
    ready: int
    old: int


# The second where containers of others (a mesh's) come before ours.
_BEING_MADE = ("ContainerCreating", "PodInitializing")


def count(view: View, revision: int) -> Count:
    """How far the revision is."""
    spec = view.deployment.get("spec") or {}
    mine = [each for each in view.pods if revision_of(each) == revision and lives(each)]
    return Count(
        wanted=int(spec.get("replicas", 1)),
        made=len(mine),
        ready=sum(is_ready(each) for each in mine),
        old=sum(revision_of(each) != revision and lives(each) for each in view.pods),
    )


def is_complete(view: View, revision: int) -> bool:
    """Whether the revision answers with all of its pods, and no other does."""
    if not is_observed(view.deployment):
        return False
    status = view.deployment.get("status") or {}
    wanted = int((view.deployment.get("spec") or {}).get("replicas", 1))
    updated = int(status.get("updatedReplicas") or 0)
    available = int(status.get("availableReplicas") or 0)
    total = int(status.get("replicas") or 0)
    settled = updated >= wanted and available >= updated and total <= updated
    return settled and count(view, revision).ready >= wanted


def is_observed(deployment: Object) -> bool:
    """Whether the cluster's status is about what was applied last."""
    metadata, status = deployment.get("metadata") or {}, deployment.get("status") or {}
    return int(status.get("observedGeneration") or 0) >= int(metadata.get("generation") or 0)


def is_stuck(deployment: Object) -> bool:
    """Whether the cluster itself says that the rollout has stopped getting on."""
    progressing = condition(deployment, "Progressing")
    return is_observed(deployment) and progressing.get("reason") == "ProgressDeadlineExceeded"


def is_pulling(view: View, revision: int) -> bool:
    """Whether a node fetches the image, which may take long."""
    return any(
        ((each.get("state") or {}).get("waiting") or {}).get("reason") in _BEING_MADE
        for pod in view.pods
        if revision_of(pod) == revision
        for each in containers(pod)
    )


def condition(item: Object, kind: str) -> dict[str, Any]:
    """One of an object's conditions; empty for none."""
    for each in (item.get("status") or {}).get("conditions") or ():
        if each.get("type") == kind:
            return dict(each)
    return {}


def is_ready(pod: Object) -> bool:
    """Whether the pod takes requests."""
    return condition(pod, "Ready").get("status") == "True" and lives(pod)


def revision_of(item: Object) -> int:
    """The revision that an object or pod says it is of; 0 for none."""
    found = ((item.get("metadata") or {}).get("labels") or {}).get(labels.REVISION, "")
    return int(found) if found.isdigit() else 0


def restarts(pod: Object) -> int:
    """Of all of its containers."""
    return sum(int(each.get("restartCount") or 0) for each in containers(pod))


def containers(pod: Object) -> list[Object]:
    """What the kubelet tells of all of a pod's containers, those that come first among them."""
    status = pod.get("status") or {}
    return [
        *(status.get("initContainerStatuses") or ()),
        *(status.get("containerStatuses") or ()),
    ]


def leaves(pod: Object) -> bool:
    """Whether the pod is on its way out."""
    return bool((pod.get("metadata") or {}).get("deletionTimestamp"))


def runs(pod: Object) -> bool:
    """Whether anything of the pod may still run: it is there, and was not evicted."""
    return (pod.get("status") or {}).get("phase") not in ("Failed", "Succeeded")


def lives(pod: Object) -> bool:
    """Whether the pod counts: it is not on its way out, and has not been evicted."""
    return not leaves(pod) and runs(pod)

"""How far a rollout is, and what holds it up: the cluster's own words, read. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

from serve.targets.kubernetes import labels
from serve.targets.kubernetes.kinds import Object, name_of

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


class Trouble(NamedTuple):
    """What keeps a pod from getting ready.

    Attributes:
        key: The same for the same trouble.
        message: A sentence.
        hint: What to do.
        patience_s: After how long it is given up; None leaves that to the rollout's own limit.
        pod: Whose log may say more; empty for none.
        container: Of the pod.
        previous: The log is that of the container before its restart.
    """

    key: str
    message: str
    hint: str = ""
    patience_s: float | None = None
    pod: str = ""
    container: str = ""
    previous: bool = False


_MOMENT_S = 5.0
_WHILE_S = 15.0
_FAILED_TO_LOAD = 3
_KILLED, _TERMINATED = 137, 143
_NOT_STARTED = frozenset({126, 127, 128})
_PULLS = frozenset({"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"})
_CONFIG = frozenset({"CreateContainerConfigError", "CreateContainerError", "RunContainerError"})
_NOWHERE = re.compile(r"no match for platform|no matching manifest|does not match the .*platform")
_SURE = re.compile(
    r"not found|unauthorized|denied|forbidden|unknown|no basic auth|invalid|40[134]", re.IGNORECASE
)
_FORMAT = re.compile(r"exec format error", re.IGNORECASE)


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
        (each.get("state") or {}).get("waiting", {}).get("reason") == "ContainerCreating"
        for pod in view.pods
        if revision_of(pod) == revision
        for each in _containers(pod)
    )


def trouble(view: View, revision: int) -> Trouble | None:
    """What keeps the revision from getting ready; None where nothing does that can be seen."""
    refused = _refused(view)
    if refused is not None:
        return refused
    found = [
        each
        for pod in view.pods
        if revision_of(pod) == revision and not _leaves(pod) and not is_ready(pod)
        for each in [_pod(pod, _events_of(pod, view.events))]
        if each is not None
    ]
    # The surest first: one that is given up at once tells more than one that may still pass.
    infinite = float("inf")
    return min(
        found,
        key=lambda each: infinite if each.patience_s is None else each.patience_s,
        default=None,
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
    return sum(int(each.get("restartCount") or 0) for each in _containers(pod))


def _refused(view: View) -> Trouble | None:
    """Where pods cannot even be made."""
    if not is_observed(view.deployment):
        return None  # what it says is about what was applied before
    holders = (view.deployment, *view.sets)
    failures = [condition(each, "ReplicaFailure") for each in holders]
    said = next((str(each.get("message")) for each in failures if each.get("status") == "True"), "")
    if not said:
        return None
    if "quota" in said:
        return Trouble(
            "quota",
            f"The namespace's quota leaves no room for another pod: {_tidy(said)}.",
            "Ask for less (--set cpu=…, memory=…, replicas=…), or have the quota raised.",
            _WHILE_S,
        )
    hint = "Change what it objects to, or ask whoever runs the cluster."
    if "PodSecurity" in said:
        hint = "The namespace's Pod Security standard refuses it: leave out what it names."
    return Trouble("refused", f"The cluster makes no pod: {_tidy(said)}.", hint, _MOMENT_S)


def _pod(pod: Object, events: Sequence[Object]) -> Trouble | None:
    scheduled = condition(pod, "PodScheduled")
    if scheduled.get("reason") == "Unschedulable":
        return Trouble(
            "unschedulable",
            f"No node takes the pod {name_of(pod)}: {_tidy(str(scheduled.get('message')))}.",
            "Ask for less (--set cpu=…, memory=…, gpus=…, node_selector=…), or give the cluster "
            "a node that fits.",
        )
    for container in _containers(pod):
        found = _container(pod, container, events)
        if found is not None:
            return found
    status = pod.get("status") or {}
    if status.get("phase") == "Failed":
        why = _tidy(f"{status.get('reason') or 'Failed'}: {status.get('message') or ''}")
        return Trouble(f"failed {status.get('reason')}", f"The pod {name_of(pod)} failed: {why}.")
    return _event(pod, events)


def _container(pod: Object, container: Object, events: Sequence[Object]) -> Trouble | None:
    state = container.get("state") or {}
    waiting = state.get("waiting") or {}
    reason = str(waiting.get("reason") or "")
    if reason in _PULLS:
        return _pull(pod, waiting, events)
    if reason in _CONFIG:
        said = str(waiting.get("message") or "")
        return _not_started(pod, container, said) or Trouble(
            reason,
            f"The container of the pod {name_of(pod)} cannot be made: {_tidy(said or reason)}.",
            "Make what it names in the namespace, or leave it out of the settings.",
            _MOMENT_S,
        )
    ended = state.get("terminated") or (container.get("lastState") or {}).get("terminated")
    if ended is not None and not container.get("ready"):
        return _ended(pod, container, dict(ended), events, backs_off=reason == "CrashLoopBackOff")
    return None


def _pull(pod: Object, waiting: Object, events: Sequence[Object]) -> Trouble:
    told = [str(waiting.get("message") or "")]
    told += [str(each.get("message")) for each in events if "pull" in str(each.get("message"))]
    said = max(told, key=lambda text: (_is_telling(text), len(text)))
    if _NOWHERE.search(said):
        return Trouble(
            "platform",
            f"The image is not for the platform of the node of the pod {name_of(pod)}: "
            f"{_tidy(said)}.",
            "Build the package for that platform too: 'fieldpost package build --platform …'.",
            0,
        )
    sure = bool(_SURE.search(said)) and waiting.get("reason") != "ErrImagePull"
    return Trouble(
        "pull",
        f"The cluster cannot pull the image: {_tidy(said or str(waiting.get('reason')))}.",
        "Look whether it is there, and give the cluster a login where the registry wants one: "
        "--set pull_secret=NAME, or --set pull_login=true for this machine's own.",
        0 if sure or waiting.get("reason") == "InvalidImageName" else None,
    )


def _is_telling(text: str) -> bool:
    return bool(_NOWHERE.search(text) or _SURE.search(text))


def _ended(
    pod: Object, container: Object, ended: Object, events: Sequence[Object], *, backs_off: bool
) -> Trouble:
    found = _why_ended(pod, container, ended, events, backs_off=backs_off)
    return found._replace(
        pod=name_of(pod),
        container=str(container.get("name") or ""),
        previous="terminated" not in (container.get("state") or {}),
    )


def _why_ended(
    pod: Object, container: Object, ended: Object, events: Sequence[Object], *, backs_off: bool
) -> Trouble:
    code, reason = int(ended.get("exitCode") or 0), str(ended.get("reason") or "")
    name, many = name_of(pod), int(container.get("restartCount") or 0)
    wrong = _not_started(pod, container, str(ended.get("message") or ""))
    if wrong is not None:
        return wrong
    if reason == "OOMKilled":
        message = f"The pod {name} was killed: it needs more memory than it may have."
        return Trouble("memory", message, "Give it more: --set memory_limit=2Gi.", 0)
    probe = _probe(events)
    if code in (0, _KILLED, _TERMINATED) and probe:
        message = f"The pod {name} was restarted {many} times, since its probe failed: {probe}."
        hint = "Give it more time: --set ready_timeout_s=SECONDS."
        return Trouble("probe", message, hint, 0 if backs_off else None)
    times = f" {many} times" if many > 1 else ""
    message = f"The pod {name} ended with status {code}{times}."
    if code in _NOT_STARTED:
        hint = "The image has no interpreter for the package: choose another base."
    else:
        hint = "The end of its log says why."
    sure = backs_off or many > 1 or code == _FAILED_TO_LOAD
    return Trouble(f"ended {code}", message, hint, 0 if sure else None)


def _not_started(pod: Object, container: Object, said: str) -> Trouble | None:
    """Where an image is for another processor, which shows when it is run."""
    if not _FORMAT.search(said):
        return None
    return Trouble(
        "platform",
        f"The image {container.get('image') or ''} is for another platform than the node of the "
        f"pod {name_of(pod)}: exec format error.",
        "Build the package for that platform too: 'fieldpost package build --platform …'.",
        0,
    )


def _event(pod: Object, events: Sequence[Object]) -> Trouble | None:
    probe = _probe(events)
    if probe:
        return Trouble(
            "probe",
            f"The pod {name_of(pod)} is not ready: {probe}.",
            "Give it more time: --set ready_timeout_s=SECONDS.",
            pod=name_of(pod),
        )
    for each in events:
        if each.get("reason") in ("FailedMount", "FailedAttachVolume", "FailedCreatePodSandBox"):
            message = f"The pod {name_of(pod)} cannot start: {_tidy(str(each.get('message')))}."
            hint = "Make what it names in the namespace."
            return Trouble(f"event {each.get('reason')}", message, hint)
    return None


def _probe(events: Sequence[Object]) -> str:
    """What a probe that failed last has said."""
    said = [str(each.get("message")) for each in events if each.get("reason") == "Unhealthy"]
    return _tidy(said[-1]) if said else ""


def _events_of(pod: Object, events: Sequence[Object]) -> list[Object]:
    uid = (pod.get("metadata") or {}).get("uid")
    found = [each for each in events if (each.get("involvedObject") or {}).get("uid") == uid]
    return sorted(found, key=lambda each: str(each.get("lastTimestamp") or ""))


def _containers(pod: Object) -> list[Object]:
    status = pod.get("status") or {}
    return [
        *(status.get("initContainerStatuses") or ()),
        *(status.get("containerStatuses") or ()),
    ]


def _leaves(pod: Object) -> bool:
    return bool((pod.get("metadata") or {}).get("deletionTimestamp"))


def runs(pod: Object) -> bool:
    """Whether anything of the pod may still run: it is there, and was not evicted."""
    return (pod.get("status") or {}).get("phase") not in ("Failed", "Succeeded")


def lives(pod: Object) -> bool:
    """Whether the pod counts: it is not on its way out, and has not been evicted."""
    return not _leaves(pod) and runs(pod)


def _tidy(text: str) -> str:
    return " ".join(text.split()).rstrip(".: ")[:1000]

"""What holds a rollout up, and what to do about it: the cluster's own words, read. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from serve.targets.kubernetes import rollout
from serve.targets.kubernetes.container_troubles import (
    MOMENT_S,
    WHILE_S,
    Trouble,
    container_trouble,
    probe_message,
    tidy,
    why_restarted,
)
from serve.targets.kubernetes.kinds import Object, name_of
from serve.targets.kubernetes.rollout import condition

if TYPE_CHECKING:
    from collections.abc import Sequence

    from serve.targets.kubernetes.rollout import View

__all__ = ["Trouble", "restart", "trouble"]

_CANNOT_BEGIN = frozenset({"FailedMount", "FailedAttachVolume", "FailedCreatePodSandBox"})
_NAMED = re.compile(r'(?:secret|configmap) "[^"]*" not found')


def trouble(view: View, revision: int) -> Trouble | None:
    """What keeps the revision from getting ready; None where nothing does that can be seen."""
    refused = _refused(view)
    if refused is not None:
        return refused
    found = [
        each
        for pod in view.pods
        if rollout.revision_of(pod) == revision
        and not rollout.leaves(pod)
        and not rollout.is_ready(pod)
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


def restart(view: View, revision: int | None) -> Trouble | None:
    """Why a container of the revision had to be started again that runs now; None for none."""
    found = [
        (str(container["lastState"]["terminated"].get("finishedAt") or ""), each)
        for pod in view.pods
        if rollout.revision_of(pod) == revision and rollout.is_ready(pod)
        for container in rollout.containers(pod)
        for each in [why_restarted(pod, container)]
        if each is not None
    ]
    return max(found, key=lambda pair: pair[0])[1] if found else None


def _refused(view: View) -> Trouble | None:
    """Where pods cannot even be made."""
    if not rollout.is_observed(view.deployment):
        return None  # what it says is about what was applied before
    holders = (view.deployment, *view.sets)
    failures = [condition(each, "ReplicaFailure") for each in holders]
    said = next((str(each.get("message")) for each in failures if each.get("status") == "True"), "")
    if not said:
        return None
    if "quota" in said:
        return _over_quota(said)
    hint = "Change what it objects to, or ask whoever runs the cluster."
    if "PodSecurity" in said:
        hint = "The namespace's Pod Security standard refuses it: leave out what it names."
    return Trouble("refused", f"The cluster makes no pod: {tidy(said)}.", hint, MOMENT_S)


def _over_quota(said: str) -> Trouble:
    if "must specify" in said:
        return Trouble(
            "quota",
            f"The namespace's quota wants to be told more: {tidy(said)}.",
            "Say what it names: --set cpu_limit=…, memory_limit=….",
            MOMENT_S,
        )
    return Trouble(
        "quota",
        f"The namespace's quota leaves no room for another pod: {tidy(said)}.",
        "Ask for less (--set cpu=…, memory=…, replicas=…), or have the quota raised.",
        WHILE_S,
    )


def _pod(pod: Object, events: Sequence[Object]) -> Trouble | None:
    status = pod.get("status") or {}
    if status.get("phase") == "Failed":  # evicted, say: its containers only tell that they ended
        why = tidy(f"{status.get('reason') or 'Failed'}: {status.get('message') or ''}")
        return Trouble(f"failed {status.get('reason')}", f"The pod {name_of(pod)} failed: {why}.")
    waiting = _unscheduled(pod)
    if waiting is not None:
        return waiting
    for container in rollout.containers(pod):
        found = container_trouble(pod, container, events)
        if found is not None:
            return found
    return _gated(pod) or _event(pod, events)


def _unscheduled(pod: Object) -> Trouble | None:
    scheduled = condition(pod, "PodScheduled")
    said = tidy(str(scheduled.get("message") or ""))
    if scheduled.get("reason") == "Unschedulable":
        return Trouble(
            "unschedulable",
            f"No node takes the pod {name_of(pod)}: {said}.",
            "Ask for less (--set cpu=…, memory=…, gpus=…, node_selector=…), or give the cluster "
            "a node that fits.",
        )
    if scheduled.get("reason") == "SchedulingGated":
        return Trouble(
            "gated",
            f"The pod {name_of(pod)} is held back by a scheduling gate: {said}.",
            "Something in the cluster lets pods go one by one: ask whoever runs it.",
        )
    return None


def _gated(pod: Object) -> Trouble | None:
    """Where the containers are ready, and something else has yet to agree."""
    ready = condition(pod, "Ready")
    if ready.get("reason") != "ReadinessGatesNotReady":
        return None
    return Trouble(
        "readiness gate",
        f"The pod {name_of(pod)} answers, and is held back: {tidy(str(ready.get('message')))}.",
        "Something in the cluster (a load balancer, say) has to let it in: ask whoever runs it.",
    )


def _event(pod: Object, events: Sequence[Object]) -> Trouble | None:
    probe = probe_message(events)
    if probe:
        return Trouble(
            "probe",
            f"The pod {name_of(pod)} is not ready: {probe}.",
            "Give it more time: --set ready_timeout_s=SECONDS.",
            pod=name_of(pod),
        )
    for each in events:
        if each.get("reason") in _CANNOT_BEGIN:
            said = str(each.get("message"))
            message = f"The pod {name_of(pod)} cannot start: {tidy(said)}."
            hint = "Make what it names in the namespace."
            patience_s = WHILE_S if _NAMED.search(said) else None
            return Trouble(f"event {each.get('reason')}", message, hint, patience_s)
    return None


def _events_of(pod: Object, events: Sequence[Object]) -> list[Object]:
    """The newest last."""
    uid = (pod.get("metadata") or {}).get("uid")
    found = [each for each in events if (each.get("involvedObject") or {}).get("uid") == uid]
    return sorted(found, key=_time_of)


def _time_of(event: Object) -> str:
    """Newer parts of a cluster write the time into other fields than older ones."""
    series = (event.get("series") or {}).get("lastObservedTime")
    made = (event.get("metadata") or {}).get("creationTimestamp")
    return str(event.get("lastTimestamp") or series or event.get("eventTime") or made or "")

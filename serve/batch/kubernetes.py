"""Runs on a cluster: applied, followed, ended."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from scoring.errors import DeploymentFailedError, FieldpostError, InUseError
from serve.batch import needs
from serve.batch.jobs import CONTAINER, RUN, Job, JobSettings, Object, render, split_settings
from serve.targets.kubernetes.client import Cluster
from serve.targets.kubernetes.deployable import facts_of
from serve.targets.kubernetes.faults import INVALID, ClusterError

if TYPE_CHECKING:
    from scoring.batch.records import Options
    from serve.batch.local import Follower
    from serve.batch.runs import View
    from serve.registry import Registry
    from serve.registry.records import Package

__all__ = ["JobSettings", "as_yaml", "cancel", "follow", "job_of", "submit", "view"]

_LOOK_S = 1.0
_GONE_S = 60.0
_STATUS_S = 3.0
# What a Job that is there cannot be told otherwise.
_FIXED = ("spec.template", "spec.completion", "spec.podFailurePolicy", "spec.backoffLimitPerIndex")
_FINAL = ("Complete", "Failed")


def job_of(
    package: Package,
    options: Options,
    given: Mapping[str, str],
    registry: Registry,
    *,
    push: bool = True,
) -> Job:
    """The job of a run; its image is pushed where the settings name a registry.

    Raises:
        UsageError: A setting is wrong or missing.
        MissingDependencyError: The package's environment cannot read or write the data.
        RegistryError: The registry refuses the image.
    """
    from serve.targets.base import TargetContext, ignore  # noqa: PLC0415 - entry points
    from serve.targets.kubernetes.publish import find_image, publish  # noqa: PLC0415 - heavy

    _, settings = split_settings(given)
    location = registry.location
    context = TargetContext(
        location=location.secret_text(),
        blobs=registry.blobs,
        cache_dir=location.blobs / "cache",
        run_dir=location.blobs / "run",
    )
    image = find_image(package.digest, settings, context)
    job = render(facts_of(package.digest, registry.blobs), image.reference, options, given)
    needs.require(package, options, registry)
    if push:
        publish(image, settings, context, ignore)
    return job


def submit(job: Job) -> dict[str, str]:
    """Gives a run to the cluster; one that has failed, or was ended, begins again.

    What its pods had scored before stays, and is not scored again.

    Returns:
        The settings that lead to it, whatever the current context is later.

    Raises:
        InUseError: It is under way with other settings.
        ClusterError: The cluster refuses it.
    """
    with _cluster(job.settings.context, job.settings.namespace) as cluster:
        present = cluster.find("Job", job.name)
        ended = "" if present is None else _ended(present)
        if ended == "Failed":
            _delete(cluster, job.name)
        if ended != "Complete":
            _apply(cluster, job)
        return {"context": cluster.access.context, "namespace": cluster.namespace}


def _apply(cluster: Cluster, job: Job) -> None:
    """The Job first: what goes with it is its own, and ends with it. Its pods wait for that."""
    *others, run = job.objects
    try:
        made = cluster.apply(run)
    except ClusterError as error:
        if error.status != INVALID or not error.where.startswith(_FIXED):
            raise
        raise InUseError(
            f"The run {job.name} is under way with other settings.",
            hint=f"Wait for its end, or 'fieldpost batch cancel {job.name}' and begin again: what "
            "is scored stays.",
        ) from error
    uid = made["metadata"]["uid"]
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": job.name, "uid": uid}
    for item in others:
        cluster.apply({**item, "metadata": {**item["metadata"], "ownerReferences": [owner]}})


def cancel(name: str, given: Mapping[str, str]) -> None:
    """Takes a run from the cluster, its pods with it."""
    with _of(given) as cluster:
        _delete(cluster, name)


def follow(name: str, given: Mapping[str, str], follower: Follower) -> None:
    """Waits for the end of a run, and tells how it goes."""
    known = 0
    with _of(given) as cluster:
        while True:
            job = cluster.find("Job", name)
            if job is None or _ended(job):
                return
            done = int((job.get("status") or {}).get("succeeded") or 0)
            if done != known:
                known = done
                follower.counted(done, int(job["spec"].get("completions") or 1))
            time.sleep(_LOOK_S)


def view(known: View, given: Mapping[str, str]) -> View:
    """A run as its cluster tells it; with its rows, where the result can be read from here."""
    from scoring.batch.stores import is_url  # noqa: PLC0415 - as below
    from serve.batch.runs import local_view  # noqa: PLC0415 - imports this module

    with _of(given, patience_s=_STATUS_S) as cluster:
        job = cluster.find("Job", known.name)
        note = "" if job is None else _reason(cluster, job)
    if is_url(known.output):
        try:
            known = local_view(known)
        except FieldpostError as error:
            note = note or f"the result cannot be read from here: {error.message}"
    if job is None:
        state = "finished" if known.state == "finished" else "cancelled"
        return msgspec.structs.replace(known, state=state, note=note or "its Job is gone")
    state = {"Complete": "finished", "Failed": "failed"}.get(_ended(job), "running")
    if is_url(known.output) and known.shards:
        return msgspec.structs.replace(known, state=state, note=note)
    done = int((job.get("status") or {}).get("succeeded") or 0)
    tasks = int(job["spec"].get("completions") or 1)
    return msgspec.structs.replace(known, state=state, note=note, done=done, shards=tasks)


def as_yaml(objects: list[Object]) -> str:
    """Objects as documents of YAML."""
    import yaml  # noqa: PLC0415 - only to print

    return str(yaml.safe_dump_all(objects, sort_keys=False))


def _of(given: Mapping[str, str], *, patience_s: float | None = None) -> Cluster:
    return _cluster(given.get("context"), given.get("namespace"), patience_s)


def _cluster(
    context: str | None, namespace: str | None, patience_s: float | None = None
) -> Cluster:
    return Cluster.connect(context, namespace=namespace, patience_s=patience_s)


def _delete(cluster: Cluster, name: str) -> None:
    """Takes a Job away, and waits until it is."""
    cluster.delete("Job", name, propagation="Foreground")
    deadline = time.monotonic() + _GONE_S
    while cluster.find("Job", name) is not None:
        if time.monotonic() > deadline:
            raise DeploymentFailedError(
                f"The Job {name} is still there after {_GONE_S:.0f} s.",
                hint="Look at its pods: kubectl get pods -l "
                f"{RUN}={name}. Then run the command again.",
            )
        time.sleep(_LOOK_S / 4)


def _ended(job: Object) -> str:
    """`Complete`, `Failed`, or nothing yet."""
    for condition in (job.get("status") or {}).get("conditions") or ():
        if condition.get("type") in _FINAL and condition.get("status") == "True":
            return str(condition["type"])
    return ""


def _reason(cluster: Cluster, job: Object) -> str:
    """Why a job has failed, or does not get on, in the words of a pod of it."""
    status = job.get("status") or {}
    said = [
        str(condition.get("message") or condition.get("reason") or "")
        for condition in status.get("conditions") or ()
        if condition.get("type") == "Failed" and condition.get("status") == "True"
    ]
    if (job.get("spec") or {}).get("suspend"):
        said.append("it is suspended: whoever runs the cluster, or its queue, lets it go on")
    if status.get("failedIndexes"):
        said.append(f"failed: {status['failedIndexes']}")
    name = str(job["metadata"]["name"])
    pods = cluster.list("Pod", labels={RUN: name}).items if _ended(job) != "Complete" else []
    told = [text for each in pods if (text := _pod_reason(each))]
    return "; ".join([*said, *dict.fromkeys(told[-1:])])


def _pod_reason(pod: Object) -> str:
    """Of a pod that failed, or cannot start; empty for any other."""
    status: dict[str, Any] = pod.get("status") or {}
    for each in status.get("containerStatuses") or ():
        if each.get("name") != CONTAINER:
            continue
        state = each.get("state") or {}
        ended, waiting = state.get("terminated") or {}, state.get("waiting") or {}
        if ended.get("exitCode"):
            return str(ended.get("message") or ended.get("reason") or "").strip()
        if waiting.get("reason") not in {None, "ContainerCreating", "PodInitializing"}:
            return f"{waiting['reason']}: {waiting.get('message', '')}".rstrip(": ")
    for condition in status.get("conditions") or ():
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            return f"{condition.get('reason')}: {condition.get('message', '')}"
    return ""

"""What really runs in a cluster, for people and for the workspace."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from serve.targets.base import Status, StatusState, WorkerStatus
from serve.targets.kubernetes import rollout, troubles
from serve.targets.kubernetes.kinds import Object, name_of

if TYPE_CHECKING:
    from serve.registry.records import Deployment
    from serve.targets.kubernetes.rollout import View
    from serve.targets.kubernetes.settings import KubernetesSettings
    from serve.targets.kubernetes.troubles import Trouble

_HTTP, _HTTPS = 80, 443


def observe(deployment: Deployment, view: View) -> Status:
    """The status, as the cluster has it.

    Args:
        deployment: As the registry wishes it.
        view: What the cluster says.
    """
    applied = rollout.revision_of(view.deployment)
    serving = _serving(deployment, view, applied)
    workers = [_worker(pod) for pod in view.pods]
    workers.sort(key=lambda each: (each.revision != serving, each.revision, each.name))
    stopped = deployment.desired == "stopped"
    state = "stopped" if stopped and not _wanted(view) else _state(view, applied)
    fine, other = state in ("running", "stopped"), _other(deployment, applied)
    note, error = _before(view, serving) if fine else _why(view)
    return Status(
        state=state,
        revision=serving,
        url=deployment.address,
        workers=tuple(workers),
        restarts=sum(each.restarts for each in workers if each.revision == serving),
        uptime_s=max((w.uptime_s for w in workers if w.state == "ready"), default=0.0),
        note=(other or note) if fine else (note or other),
        last_error=error,
    )


def gone(deployment: Deployment, where: str) -> Status:
    """Where the cluster has nothing of it."""
    stopped = deployment.desired == "stopped"
    again = f"'fieldpost deployment start {deployment.name}' brings it back."
    return Status(
        state="stopped" if stopped else "down",
        revision=deployment.active,
        url=deployment.address,
        note="" if stopped else f"{where} has nothing of it. {again}",
    )


def url_of(settings: KubernetesSettings, name: str, namespace: str) -> str:
    """Where a deployment answers: its hostname, else the name of its Service in the cluster."""
    if settings.hostname:
        scheme = "https" if settings.ingress_tls_secret else "http"
        return f"{scheme}://{settings.hostname}{settings.path}".rstrip("/")
    scheme, usual = ("https", _HTTPS) if settings.tls else ("http", _HTTP)
    port = f":{settings.service_port}" if settings.service_port != usual else ""
    return f"{scheme}://{name}.{namespace}.svc{port}"


def _serving(deployment: Deployment, view: View, applied: int) -> int | None:
    """The revision that takes requests: the wished one, where both do."""
    ready = {rollout.revision_of(pod) for pod in view.pods if rollout.is_ready(pod)}
    if deployment.active in ready or not ready:
        return deployment.active if deployment.active is not None else applied or None
    return max(ready)


def _wanted(view: View) -> int:
    return int((view.deployment.get("spec") or {}).get("replicas", 1))


def _state(view: View, applied: int) -> StatusState:
    if rollout.is_complete(view, applied):
        return "running"
    ready = sum(map(rollout.is_ready, view.pods))
    found = troubles.trouble(view, applied)
    if ready:
        return "degraded" if found is not None or ready < _wanted(view) else "running"
    if rollout.is_stuck(view.deployment):
        return "failed"
    return "failed" if found is not None and found.patience_s is not None else "starting"


def _why(view: View) -> tuple[str, dict[str, Any] | None]:
    applied = rollout.revision_of(view.deployment)
    found = troubles.trouble(view, applied)
    if found is None:
        count = rollout.count(view, applied)
        return f"{count.ready} of {count.wanted} pods of revision {applied} are ready.", None
    return _told(found)


def _before(view: View, serving: int | None) -> tuple[str, dict[str, Any] | None]:
    """What runs may have been killed and started again: by too large a request, say."""
    found = troubles.restart(view, serving)
    return ("", None) if found is None else _told(found)


def _told(found: Trouble) -> tuple[str, dict[str, Any]]:
    error = {"code": "deployment_failed", "message": found.message, "hint": found.hint}
    return f"{found.message} {found.hint}".strip(), error


def _other(deployment: Deployment, applied: int) -> str:
    """Where a command was killed: what it had applied is not what the workspace wishes."""
    if deployment.active is None or applied in (0, deployment.active):
        return ""
    return (
        f"Revision {applied} was applied by a command that did not get to its end. Deploy again, "
        f"or 'fieldpost deployment start {deployment.name}' for revision {deployment.active}."
    )


def _worker(pod: Object) -> WorkerStatus:
    return WorkerStatus(
        name=name_of(pod),
        revision=rollout.revision_of(pod),
        state=_worker_state(pod),
        restarts=rollout.restarts(pod),
        uptime_s=_uptime_s(pod),
    )


def _worker_state(pod: Object) -> str:
    if (pod.get("metadata") or {}).get("deletionTimestamp"):
        return "draining"
    if rollout.is_ready(pod):
        return "ready"
    waiting = any(
        (each.get("state") or {}).get("waiting", {}).get("reason") == "CrashLoopBackOff"
        for each in (pod.get("status") or {}).get("containerStatuses") or ()
    )
    phase = (pod.get("status") or {}).get("phase")
    if phase in ("Failed", "Succeeded"):
        return "failed" if phase == "Failed" else "stopped"
    return "waiting" if waiting else "starting"


def _uptime_s(pod: Object) -> float:
    for each in (pod.get("status") or {}).get("containerStatuses") or ():
        began = ((each.get("state") or {}).get("running") or {}).get("startedAt")
        if began:
            since = datetime.now(UTC) - datetime.fromisoformat(str(began))
            return max(since.total_seconds(), 0.0)
    return 0.0

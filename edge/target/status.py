"""What a fleet says of a deployment, as the workspace shows what runs. Reads the records."""

from __future__ import annotations

from typing import Final

from edge.controller.entities import Device, Member, Revision, Rollout
from edge.controller.records import Fleet
from edge.controller.rollouts import Course
from edge.workspace import Deployment
from scoring.deploying.status import Status, StatusState, WorkerStatus
from scoring.errors import NotFoundError

MOST_SHOWN: Final = 100
"""Devices among the workers; those that need a look come first."""

_ORDER: Final = ("failed", "starting", "waiting", "stopped", "ready")
_BAD: Final = frozenset({"failed", "reverted"})


def observe(deployment: Deployment, fleet: Fleet, now: float) -> Status:
    """What devices run of a deployment.

    Args:
        deployment: As the workspace wishes for it.
        fleet: The records.
        now: Seconds since the epoch.
    """
    try:
        revision, course = fleet.revision(deployment.name), fleet.rollout(deployment.name)
    except NotFoundError:
        return _absent(deployment)
    if deployment.desired == "stopped":
        return Status(state="stopped", revision=deployment.active)
    devices = {one.name: one for one in fleet.devices(revision.condition)}
    number = deployment.active or 0
    workers = [_worker(one, revision, number) for one in devices.values()]
    workers.sort(key=lambda one: (_ORDER.index(one.state), one.name))
    rollout = course.rollout
    is_done = rollout.state == "complete"
    return Status(
        state=_state(course),
        revision=deployment.active,
        workers=tuple(workers[:MOST_SHOWN]),
        restarts=sum(one.restarts for one in workers),
        uptime_s=round(now - rollout.changed_at, 1) if is_done else 0.0,
        note=_note(deployment, revision, rollout, course, len(workers)),
        last_error=_last_error(course.members),
    )


def _absent(deployment: Deployment) -> Status:
    if deployment.desired == "stopped" or deployment.active is None:
        return Status(state="stopped", revision=deployment.active)
    return Status(
        state="down",
        revision=deployment.active,
        note=f"The fleet has no deployment of this name any more: "
        f"'fieldpost deployment start {deployment.name}'.",
    )


def _state(course: Course) -> StatusState:
    counts, state = course.counts(), course.rollout.state
    good = counts.get("good", 0)
    if state in {"running", "paused"}:
        return "starting"
    if state == "complete" and good == sum(counts.values()) - counts.get("gone", 0):
        return "running"
    return "degraded" if good else "failed"


def _note(
    deployment: Deployment, revision: Revision, rollout: Rollout, course: Course, matching: int
) -> str:
    counts = ", ".join(f"{n} {state}" for state, n in course.counts().items())
    notes = []
    active = deployment.active_revision
    packages = {module.package for module in revision.modules.values()}
    if active is not None and packages != {active.package}:
        notes.append(f"The fleet has {revision.id}, which this deployment did not make.")
    if rollout.state != "complete":
        wave = f"wave {rollout.wave + 1} of {rollout.waves}"
        notes.append(f"The rollout {rollout.id} is {rollout.state}: {wave}, {counts or 'nobody'}.")
    if rollout.note:
        notes.append(rollout.note)
    if not matching:
        notes.append("No device matches now; those that come to match get it.")
    if matching > MOST_SHOWN:
        notes.append(f"{MOST_SHOWN} of {matching} devices are shown.")
    return " ".join(notes)


def _worker(device: Device, revision: Revision, number: int) -> WorkerStatus:
    name = next(iter(revision.modules))
    found = device.modules.get(name)
    restarts = found.restarts if found is not None else 0
    state = _state_of(device, revision, name)
    return WorkerStatus(name=device.name, revision=number, state=state, restarts=restarts)


def _state_of(device: Device, revision: Revision, name: str) -> str:
    found = device.modules.get(name)
    if found is not None and found.phase in _BAD and found.wanted == revision.modules[name].package:
        return "failed"
    if not device.online:
        return "waiting"
    if found is None or found.wanted != revision.modules[name].package:
        return "starting"
    if found.phase == "stopped":
        return "stopped"
    return "ready" if found.phase == "good" and found.healthy else "starting"


def _last_error(members: list[Member]) -> dict[str, str] | None:
    bad = [one for one in members if one.state in {"failed", "silent"} and one.note]
    if not bad:
        return None
    last = max(bad, key=lambda one: one.progressed)
    return {
        "code": "deployment_failed",
        "message": f"{last.device}: {last.note}",
        "hint": f"See 'fieldpost device logs {last.device}'.",
    }

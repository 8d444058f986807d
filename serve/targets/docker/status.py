"""What really runs of a deployment, from what the engine and the front say."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from serve.targets.base import Status, StatusState, WorkerStatus
from serve.targets.docker.events import Told
from serve.targets.docker.names import FRONT, WORKER

if TYPE_CHECKING:
    from collections.abc import Sequence

    from serve.registry.records import Deployment
    from serve.targets.docker.crew import Crew, Member

_NANOSECONDS = re.compile(r"(\.\d{1,6})\d*")
_KILLED = 137


class Seen(NamedTuple):
    """A worker's container and what the front knows of it.

    Attributes:
        member: The container.
        document: What the engine says of it.
        told: What the front says.
        memory: Bytes; None where unknown.
    """

    member: Member
    document: dict[str, Any]
    told: Told
    memory: int | None

    @property
    def state(self) -> dict[str, Any]:
        """The engine's word."""
        return self.document.get("State") or {}

    @property
    def restarts(self) -> int:
        """By the engine."""
        return int(self.document.get("RestartCount") or 0)


def observe(crew: Crew, deployment: Deployment) -> Status:
    """Asks the engine; raises as it does where it does not answer."""
    members = crew.members()
    workers = [m for m in members if m.role == WORKER and m.revision == deployment.active]
    runs = {each.run for each in workers}
    front = next((m for m in members if m.role == FRONT and m.run in runs), None)
    told = crew.told(front) if front is not None else {}
    seen = [_look(crew, each, told.get(each.source, Told())) for each in workers]
    return judge(deployment, front, seen, crew.engine.where)


def judge(deployment: Deployment, front: Member | None, seen: Sequence[Seen], where: str) -> Status:
    """The state of a deployment by what was seen of it. Pure but for the clock.

    Args:
        deployment: What the registry wishes.
        front: The container with the port; None for none.
        seen: The workers of the active revision.
        where: The engine, for messages.
    """
    shown = tuple(_worker_status(each) for each in seen)
    ready = [each for each in shown if each.state == "ready"]
    failing = next((each for each in seen if each.told.error is not None), None)
    state, note = _state(deployment, front, seen, shown, where)
    return Status(
        state=state,
        revision=deployment.active,
        url=deployment.address,
        workers=shown,
        restarts=sum(each.restarts for each in shown),
        uptime_s=max((each.uptime_s for each in ready), default=0.0),
        note=note,
        last_error=failing.told.error if failing else None,
        detail=failing.told.detail if failing else "",
    )


def _state(
    deployment: Deployment,
    front: Member | None,
    seen: Sequence[Seen],
    shown: Sequence[WorkerStatus],
    where: str,
) -> tuple[StatusState, str]:
    again = f"'fieldpost deployment start {deployment.name}' brings it back."
    alive = [each for each in seen if each.member.is_up]
    if deployment.desired == "stopped":
        return ("stopped", "") if not alive else ("running", "It is to be stopped.")
    if not seen:
        return "down", f"{where} has no container of its revision any more. {again}"
    if front is None or not front.is_up:
        what = "was removed" if front is None else f"does not run ({front.state})"
        return "down", f"The container that holds its port {what}. {again}"
    return _state_of_workers(seen, shown, again)


def _state_of_workers(
    seen: Sequence[Seen], shown: Sequence[WorkerStatus], again: str
) -> tuple[StatusState, str]:
    states = {each.state for each in shown}
    reasons = [why for each in seen if (why := _trouble(each))]
    if states == {"ready"}:
        return "running", ""
    if "ready" in states:
        return "degraded", " ".join(reasons) or "Some of its workers are not ready."
    if all(not each.member.is_up for each in seen):
        return "down", " ".join([*reasons, again])
    if any(each.told.error is not None for each in seen):
        return "failed", " ".join(reasons)
    if "waiting" in states or "paused" in states:
        return "degraded", " ".join(reasons)
    return "starting", " ".join(reasons)


def _trouble(seen: Seen) -> str:
    """Why a worker does not answer, in a sentence; empty where it does, or is just starting."""
    source, state = seen.member.source, seen.state
    if seen.told.error is not None:
        return f"{source} did not load: {seen.told.error.get('message', '')}".rstrip(".") + "."
    if state.get("Paused"):
        return f"{source} is paused: 'docker unpause' lets it go on."
    if seen.member.is_up and not state.get("Restarting"):
        if seen.told.ready and not seen.told.opened:
            return f"{source} waits for a command that was killed: deploy, or start, again."
        return ""
    code = int(state.get("ExitCode") or 0)
    if state.get("OOMKilled"):
        ended = "was killed: it needs more memory than it may have"
    elif code == _KILLED:
        ended = "was killed"
    else:
        ended = f"ended with status {code}"
    said = str(state.get("Error") or "").strip().rstrip(".")
    later = " and is started again soon" if state.get("Restarting") else ""
    return f"{source} {ended}{later}{f': {said}' if said else ''}."


def _look(crew: Crew, member: Member, told: Told) -> Seen:
    document = crew.engine.inspect(member.id) or {}
    running = bool((document.get("State") or {}).get("Running"))
    memory = crew.engine.memory(member.id) if running else None
    return Seen(member, document, told, memory)


def _worker_status(seen: Seen) -> WorkerStatus:
    running = bool(seen.state.get("Running")) and not seen.state.get("Restarting")
    return WorkerStatus(
        name=f"w{seen.member.slot}",
        revision=seen.member.revision,
        state=_worker_state(seen),
        restarts=seen.restarts,
        uptime_s=_age_s(str(seen.state.get("StartedAt") or "")) if running else 0.0,
        rss_bytes=seen.memory,
    )


def _worker_state(seen: Seen) -> str:
    if seen.state.get("Paused"):
        return "paused"
    if seen.state.get("Restarting"):
        return "waiting"
    if not seen.state.get("Running"):
        failed = seen.told.error is not None or seen.state.get("ExitCode")
        return "failed" if failed else "stopped"
    return "ready" if seen.told.answers else "starting"


def _age_s(stamp: str) -> float:
    """Seconds since a time of the engine, which has nanoseconds."""
    try:
        began = datetime.fromisoformat(_NANOSECONDS.sub(r"\1", stamp))
    except ValueError:
        return 0.0
    return max((datetime.now(UTC) - began).total_seconds(), 0.0)

"""What the controller keeps: devices, deployments with their revisions, rollouts, commands, events.

Values without behaviour; as they are here they are stored, and printed with `--json`.
"""

from __future__ import annotations

from typing import Any, Final, Literal

import msgspec

from edge.controller.conditions import Subject, Value
from edge.protocol.messages import Failure, Module, ModuleState, Window

RolloutState = Literal["running", "paused", "halted", "aborted", "superseded", "complete"]
"""`halted`: by itself, because too many failed; `paused`: by a person."""

OPEN: Final[frozenset[RolloutState]] = frozenset({"running", "paused", "halted"})
"""Rollouts that may still go on."""

MemberState = Literal["pending", "started", "good", "failed", "silent", "withdrawn", "gone"]
"""`silent`: said nothing for too long, and counts as failed until it is heard. `withdrawn`: the
rollout was aborted before the device was good. `gone`: deleted, or another deployment's now."""

CommandState = Literal["waiting", "sent", "done", "failed", "expired"]


class Device(msgspec.Struct, kw_only=True):
    """A device as the controller knows it.

    Attributes:
        name: Unique in the fleet: brokers know it by that alone.
        site: Where it is.
        created_at: Seconds since the epoch.
        tags: Given by people.
        facts: Reported by itself.
        online: Whether it is connected.
        boot: Of the newest status or report.
        session: Of the newest status.
        seq: Of the newest report, within `boot`.
        generation: Of its newest desired state; 0 for none.
        observed: The generation that it has taken on.
        seen_at: When something of it came last; 0 for never.
        modules: As it reported them.
        refused: Why it did not take a newer desired state on.
        content: Digest of what the desired state says, besides its number and time.
        envelope: The signed desired state.
        resets: How often its boot counter went back: of new hardware, or of a clone.
    """

    name: str
    site: str
    created_at: float = 0.0
    tags: dict[str, str] = {}
    facts: dict[str, Value] = {}
    online: bool = False
    boot: int = 0
    session: int = 0
    seq: int = 0
    generation: int = 0
    observed: int = 0
    seen_at: float = 0.0
    modules: dict[str, ModuleState] = {}
    refused: Failure | None = None
    content: str = ""
    envelope: str = ""
    resets: int = 0

    @property
    def subject(self) -> Subject:
        """What conditions see of it."""
        return Subject(self.name, self.site, self.tags, self.facts)


class Revision(msgspec.Struct, frozen=True, kw_only=True):
    """One state of a deployment; every change of it is a new one, and travels by a rollout.

    Attributes:
        deployment: Its name.
        number: 1, 2, 3 …
        condition: Which devices; see `conditions`.
        priority: Where several deployments match, the highest wins, then the newest.
        layer: Whether its modules are added to those of another deployment.
        modules: Name to what runs.
        window: When devices may switch, in their own time.
        rate: Bytes a second for fetching; 0 for all.
        created_at: Seconds since the epoch.
        created_by: Who made it.
    """

    deployment: str
    number: int
    condition: str
    modules: dict[str, Module]
    priority: int = 0
    layer: bool = False
    window: Window | None = None
    rate: int = 0
    created_at: float = 0.0
    created_by: str = ""

    @property
    def id(self) -> str:
        """`NAME:NUMBER`, which is its rollout's name, too."""
        return f"{self.deployment}:{self.number}"


class Deployment(msgspec.Struct, kw_only=True):
    """What a part of the fleet is to run.

    Attributes:
        name: Its name.
        made: Counts up with each new deployment: of two that tie, the newer wins.
        stable: The revision that every matching device gets; 0 before the first rollout is done.
        newest: The revision made last.
        created_at: Seconds since the epoch.
    """

    name: str
    made: int
    stable: int = 0
    newest: int = 0
    created_at: float = 0.0


class Plan(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How a rollout goes through its devices.

    Attributes:
        waves: How many devices have it after each wave: counts and percentages, growing.
        first: A condition; the devices that match it are the first wave.
        most_failures: In each wave: a count, or a percentage of it. More halt the rollout.
        timeout_s: For how long a device may show no progress before it counts as failed.
        between_s: From the end of a wave to the beginning of the next.
        offline: `fail`: devices that are not there count as failed after the timeout; `wait`: those
            that were offline when their wave began count from when they are seen.
        observe_s: For how long a wave is observed once its devices are good, before the next one
            begins, or the rollout is complete. What they tell then may halt it:
        most_errors: The part of the requests of a wave that may fail; 1 for any.
        most_latency_s: What the slowest hundredth of them may take; 0 for any.
    """

    waves: tuple[str, ...] = ("1", "10%", "50%", "100%")
    first: str = ""
    most_failures: str = "0"
    timeout_s: float = 1800.0
    between_s: float = 0.0
    offline: Literal["fail", "wait"] = "fail"
    observe_s: float = 0.0
    most_errors: float = 1.0
    most_latency_s: float = 0.0


class Member(msgspec.Struct, kw_only=True):
    """A device in a rollout.

    Attributes:
        device: Its name.
        wave: From 0.
        state: How far it is.
        generation: From which on it speaks of this rollout.
        since: When it was told, in seconds since the epoch.
        progressed: When it last came nearer, or was told.
        phase: What it does.
        note: Why it failed.
        excused: It failed, and the rollout was resumed over that.
        absent: It was offline when it was told, and was not seen since.
        earlier: The revision that it was told before, where that was not the stable one.
    """

    device: str
    wave: int
    state: MemberState = "pending"
    generation: int = 0
    since: float = 0.0
    progressed: float = 0.0
    phase: str = ""
    note: str = ""
    excused: bool = False
    absent: bool = False
    earlier: int = 0


class Rollout(msgspec.Struct, kw_only=True):
    """A revision on its way through the fleet.

    Attributes:
        deployment: Whose revision.
        revision: Its number.
        state: See `RolloutState`.
        plan: How it goes.
        wave: The one that is under way; -1 before the first.
        waves: How many there are.
        note: Why it is in this state.
        created_at: Seconds since the epoch.
        changed_at: Of the last change of its state or wave.
    """

    deployment: str
    revision: int
    plan: Plan
    state: RolloutState = "running"
    wave: int = -1
    waves: int = 0
    note: str = ""
    created_at: float = 0.0
    changed_at: float = 0.0

    @property
    def id(self) -> str:
        """`NAME:REVISION`."""
        return f"{self.deployment}:{self.revision}"


class CommandRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Something that a device is to do, and what came of it.

    Attributes:
        id: Of the request.
        device: Whose.
        verb: What to do.
        arguments: Of the verb.
        deadline: Seconds since the epoch.
        state: How far it is.
        created_at: Seconds since the epoch.
        output: What the device said.
        failure: Why it was not done.
        key: The same when the same command is sent again: it is done once.
    """

    id: str
    device: str
    verb: str
    deadline: float
    key: str
    arguments: dict[str, Any] = {}
    state: CommandState = "waiting"
    created_at: float = 0.0
    output: str = ""
    failure: Failure | None = None


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened, for people.

    Attributes:
        number: Counts up.
        at: Seconds since the epoch.
        kind: `rollout`, `device`, `security`, `controller`.
        subject: Which one.
        text: What, in a sentence.
    """

    number: int
    at: float
    kind: str
    subject: str
    text: str

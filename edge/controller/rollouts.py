"""A rollout as a state machine: reports, time and people's words in; devices to tell out.

Pure: time is an argument, and what changed is collected for whoever keeps it. Counts are kept as
members change, so that a report costs the same whatever the size of the fleet.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final, Literal, NamedTuple

from edge.controller import criteria, waves
from edge.controller.criteria import Answered
from edge.controller.entities import OPEN, Device, Member, MemberState, Rollout
from edge.protocol.messages import SETTLED, Module
from scoring.errors import UsageError

OutcomeKind = Literal["unseen", "moving", "waiting", "good", "failed"]

_BAD: Final = frozenset({"failed", "silent"})
_WATCHED: Final = frozenset({"started"})
_TOLD: Final = frozenset({"started", "good", "failed", "silent"})
_NOT_TOLD: Final = frozenset({"pending", "gone"})
_NAMED: Final = 5


class Outcome(NamedTuple):
    """What a device's report says about a rollout.

    Attributes:
        kind: `unseen`: it speaks of an older generation; `waiting`: for its window.
        phase: What it does.
        note: Why it failed, or is held up.
    """

    kind: OutcomeKind
    phase: str = ""
    note: str = ""


_MAY_PASS: Final = frozenset({"unreachable", "expired", "workspace", "storage_full"})
"""Why a device does not take a wish on now, and tries again by itself: silence counts, not this."""


def outcome(device: Device, generation: int, modules: Mapping[str, Module]) -> Outcome:
    """What a device's newest report says of the modules that a rollout is about.

    Args:
        device: With what it reported.
        generation: From which on it speaks of the rollout.
        modules: Those that it is about.
    """
    if device.observed < generation:
        refused = device.refused
        newest = max(generation, device.generation)
        if refused is None or 0 < refused.generation < newest:
            return Outcome("unseen")  # it speaks of an older one
        kind: OutcomeKind = "moving" if refused.code in _MAY_PASS else "failed"
        return Outcome(kind, "refused", f"{refused.code}: {refused.message}")
    found = [_of_module(device, name, wanted) for name, wanted in sorted(modules.items())]
    for kind in ("failed", "moving", "waiting"):
        for one in found:
            if one.kind == kind:
                return one
    return Outcome("good", "good")


def _of_module(device: Device, name: str, wanted: Module) -> Outcome:
    state = device.modules.get(name)
    if state is None or state.wanted != wanted.package:
        return Outcome("moving", "unseen")
    if state.phase == "good":
        if state.package != wanted.package:
            return Outcome("moving", "good")
        return Outcome("good", "good") if state.healthy else Outcome("moving", "unhealthy")
    if state.phase in SETTLED:
        failure = state.failure
        why = f"{failure.code}: {failure.message}" if failure else f"it is {state.phase}"
        return Outcome("failed", state.phase, f"{name}: {why}")
    kind: OutcomeKind = "waiting" if state.phase == "waiting" else "moving"
    return Outcome(kind, state.phase)


Ask = Callable[[Mapping[str, float]], Answered]
"""What devices have answered with a rollout's packages, each since a time of its own."""


class Course:
    """One rollout with its members.

    Args:
        rollout: Changed in place.
        members: Changed in place.

    Attributes:
        rollout: The rollout.
        changed: The members that have changed since it was emptied.
        told: Those of them that are to be told (anew) what they run.
        moved: Whether the rollout itself has changed since this was set to False.
    """

    def __init__(self, rollout: Rollout, members: Iterable[Member]) -> None:
        self.rollout = rollout
        self._members = {member.device: member for member in members}
        self._sizes = Counter(member.wave for member in self._members.values())
        self._counts: Counter[tuple[int, MemberState]] = Counter()
        self._excused: Counter[int] = Counter()
        self._watched: dict[str, Member] = {}
        self.changed: dict[str, Member] = {}
        self.told: dict[str, Member] = {}
        self.moved = False
        for member in self._members.values():
            self._count(member, 1)
        rollout.waves = max(self._sizes, default=-1) + 1

    # -- what there is

    @property
    def is_open(self) -> bool:
        """Whether it may still go on."""
        return self.rollout.state in OPEN

    @property
    def members(self) -> list[Member]:
        """All of them."""
        return list(self._members.values())

    def member(self, device: str) -> Member | None:
        """One of them."""
        return self._members.get(device)

    def counts(self) -> dict[str, int]:
        """State to number of members."""
        totals: Counter[str] = Counter()
        for (_, state), count in self._counts.items():
            totals[state] += count
        return {state: count for state, count in sorted(totals.items()) if count}

    def _count(self, member: Member, by: int) -> None:
        self._counts[member.wave, member.state] += by
        if member.excused and member.state in _BAD:
            self._excused[member.wave] += by
        if by > 0 and member.state in _WATCHED:
            self._watched[member.device] = member
        else:
            self._watched.pop(member.device, None)

    def _set(self, member: Member, state: MemberState, **changes: object) -> None:
        self._count(member, -1)
        member.state = state
        for name, value in changes.items():
            setattr(member, name, value)
        self._count(member, 1)
        self.changed[member.device] = member

    def _move(self, now: float, **changes: object) -> None:
        for name, value in changes.items():
            setattr(self.rollout, name, value)
        self.rollout.changed_at = now
        self.moved = True

    # -- what devices say

    def report(self, device: str, found: Outcome, now: float) -> None:
        """Takes what a device says; the same again changes nothing.

        A device that failed, or was silent, and is good after all counts as good.
        """
        member = self._members.get(device)
        if member is None or member.state not in _TOLD or found.kind == "unseen":
            return
        if found.kind == "good":
            self._become(member, "good", found, now)
        elif found.kind == "failed":
            self._become(member, "failed", found, now)
        elif member.state in {"started", "silent"}:
            self._progress(member, found, now)

    def _become(self, member: Member, state: MemberState, found: Outcome, now: float) -> None:
        if (member.state, member.note) != (state, found.note):
            self._set(
                member, state, phase=found.phase, note=found.note, progressed=now, absent=False
            )

    def _progress(self, member: Member, found: Outcome, now: float) -> None:
        if member.phase != found.phase or member.absent:
            self._set(
                member,
                "started",
                phase=found.phase,
                progressed=now,
                note=found.note,
                absent=False,
            )
        elif found.kind == "waiting":
            # Its window is hours away, and it has just said so: that is no silence.
            member.progressed = now

    def seen(self, device: str, now: float) -> None:
        """A device that was absent when it was told is there now."""
        member = self._watched.get(device)
        if member is not None and member.absent:
            self._set(member, member.state, absent=False, progressed=now)

    def lose(self, device: str, why: str) -> None:
        """A device is no longer one of the rollout's."""
        member = self._members.get(device)
        if member is not None and member.state != "gone":
            self._set(member, "gone", note=why)

    # -- time

    def skip(self, seconds: float) -> None:
        """Nobody watched for so long: what the devices did meanwhile is not held against them."""
        for member in self._watched.values():
            member.progressed += seconds
            self.changed[member.device] = member

    def overdue(self, now: float, part: float = 1.0) -> Iterator[Member]:
        """The devices that have shown nothing for this part of the timeout."""
        limit = self.rollout.plan.timeout_s * part
        for member in list(self._watched.values()):
            patient = member.absent and self.rollout.plan.offline == "wait"
            if not patient and now - member.progressed > limit:
                yield member

    def advance(self, now: float, online: Mapping[str, bool]) -> None:
        """Counts silence, halts, completes, begins waves: whatever is due.

        Args:
            now: Seconds since the epoch.
            online: Which devices are connected.
        """
        if not self.is_open:
            return
        for member in self.overdue(now):
            if member.phase == "waiting" and online.get(member.device):
                continue
            why = ": ".join(part for part in (member.phase, member.note) if part)
            note = f"no progress for {self.rollout.plan.timeout_s:g} s ({why or 'never heard'})"
            self._set(member, "silent", note=note)
        if self.rollout.state == "running" and not self._halt(now):
            self._go_on(now, online)

    def _halt(self, now: float) -> bool:
        for wave in range(self.rollout.wave + 1):
            failed = self._failed(wave)
            most = waves.allowed(self.rollout.plan, self._sizes[wave])
            if failed > most:
                size = self._sizes[wave]
                note = (
                    f"In wave {wave + 1}, {failed} of {size} devices failed, and {most} may: "
                    f"{self._names(wave)}."
                )
                self._move(now, state="halted", note=note)
                return True
        return False

    def judge(self, now: float, ask: Ask) -> None:
        """Halts where telemetry says that a wave does not do well.

        Args:
            now: Seconds since the epoch.
            ask: Says what devices have answered.
        """
        plan = self.rollout.plan
        if self.rollout.state != "running" or not criteria.judges(plan):
            return
        for wave in range(self.rollout.wave + 1):
            good = {m.device: m.progressed for m in self._of_wave(wave) if m.state == "good"}
            found = criteria.complaint(plan, ask(good)) if good else ""
            if found:
                note = f"In wave {wave + 1}, {found}: {self._worst(good, ask)}."
                self._move(now, state="halted", note=note)
                return

    def _worst(self, good: Mapping[str, float], ask: Ask) -> str:
        """The devices with the most errors, or all where none has any."""
        counted = {name: ask({name: since}) for name, since in good.items()}
        order = sorted(counted, key=lambda name: (-counted[name].errors, name))
        bad = [name for name in order if counted[name].errors] or order
        more = f" and {len(bad) - _NAMED} more" if len(bad) > _NAMED else ""
        return ", ".join(bad[:_NAMED]) + more

    def _failed(self, wave: int) -> int:
        return (
            sum(self._counts[wave, state] for state in ("failed", "silent")) - self._excused[wave]
        )

    def _names(self, wave: int) -> str:
        bad = [
            f"{member.device} ({member.note})"
            for member in self._members.values()
            if member.wave == wave and member.state in _BAD and not member.excused
        ]
        more = f" and {len(bad) - _NAMED} more" if len(bad) > _NAMED else ""
        return "; ".join(bad[:_NAMED]) + more

    def _go_on(self, now: float, online: Mapping[str, bool]) -> None:
        """Begins the next wave when this one is done; several at once where they are empty."""
        wave = self.rollout.wave
        if wave >= 0 and self._has_open(wave):
            self._start(wave, now, online)  # those that were retried, or are there again
            return
        plan, done = self.rollout.plan, self._done_at(wave)
        if wave >= self.rollout.waves - 1:
            if now >= done + plan.observe_s:
                self._move(now, state="complete", note=self._summary())
            return
        if wave < 0 or now >= done + max(plan.between_s, plan.observe_s):
            self._move(now, wave=wave + 1)
            self._start(wave + 1, now, online)
            if not self._has_open(wave + 1):
                self._go_on(now, online)

    def _done_at(self, wave: int) -> float:
        """When the last device of a wave was good, or given up."""
        told = (one.progressed for one in self._of_wave(wave) if one.state not in _NOT_TOLD)
        return max(told, default=0.0)

    def _of_wave(self, wave: int) -> Iterator[Member]:
        return (one for one in self._members.values() if one.wave == wave)

    def _has_open(self, wave: int) -> bool:
        """Whether something is still to be waited for, in this wave or one before."""
        if self._counts[wave, "pending"]:
            return True
        if self.rollout.plan.offline == "fail":
            return bool(self._watched)
        if not all(member.absent for member in self._watched.values()):
            return True
        # Devices that are away hold nobody up, as long as the version has worked somewhere.
        last = wave >= self.rollout.waves - 1
        return bool(self._watched) and not last and not self.counts().get("good")

    def _start(self, wave: int, now: float, online: Mapping[str, bool]) -> None:
        if self._counts[wave, "pending"]:
            for member in self._of_wave(wave):
                if member.state == "pending":
                    self._tell(member, now, online)

    def _tell(self, member: Member, now: float, online: Mapping[str, bool]) -> None:
        self._set(
            member,
            "started",
            since=now,
            progressed=now,
            phase="",
            note="",
            generation=0,
            excused=False,
            absent=not online.get(member.device, False),
        )
        self.told[member.device] = member

    def _summary(self) -> str:
        counts = self.counts()
        bad = counts.get("failed", 0) + counts.get("silent", 0)
        away = counts.get("started", 0)
        notes = [
            f"{bad} of {sum(counts.values())} devices do not run it." if bad else "",
            f"{away} are offline, and get it when they are back." if away else "",
        ]
        return " ".join(filter(None, notes))

    # -- people

    def pause(self, now: float) -> None:
        """Tells no further device; those that were told go on. Raises UsageError."""
        self._require("running", verb="paused")
        self._move(now, state="paused", note="")

    def resume(self, now: float) -> None:
        """Goes on; over what failed until now, where that had halted it. Raises UsageError."""
        self._require("paused", "halted", verb="resumed")
        observed = self.rollout.state == "halted" and criteria.judges(self.rollout.plan)
        for member in self._members.values():
            if member.state in _BAD and not member.excused:
                self._set(member, member.state, excused=True)
            elif member.state == "good" and observed:  # what it has told until now is forgiven
                self._set(member, "good", progressed=now)
        self._move(now, state="running", note="")

    def abort(self, now: float, *, revert: bool = False) -> list[str]:
        """Ends it; returns the devices that go back to what they had.

        Args:
            now: Seconds since the epoch.
            revert: Whether those that run it well go back, too.

        Raises:
            UsageError: It has ended already.
        """
        self._require(*OPEN, verb="aborted")
        back = []
        for member in self._members.values():
            if member.state in _TOLD and (revert or member.state != "good"):
                self._set(member, "withdrawn")
                back.append(member.device)
        self._move(now, state="aborted", note="By hand.")
        return sorted(back)

    def retry(self, now: float, devices: Iterable[str] = ()) -> list[str]:
        """Tells devices that failed once more; returns which.

        Args:
            now: Seconds since the epoch.
            devices: Which; all that failed by default.

        Raises:
            UsageError: It was aborted or superseded, or a device did not fail.
        """
        self._require(*OPEN, "complete", verb="retried")
        failed = {one.device: one for one in self._members.values() if one.state in _BAD}
        names = list(devices) or sorted(failed)
        for name in names:
            if name not in failed:
                raise UsageError(
                    f"{name[:64]!a} did not fail in the rollout {self.rollout.id}.",
                    hint=f"See 'fieldpost rollout show {self.rollout.id}'.",
                )
        for name in names:
            self._tell(failed[name], now, {name: True})
        if names and self.rollout.state in {"halted", "complete"}:
            self._move(now, state="running", note="")
        return names

    def supersede(self, now: float, by: str) -> None:
        """A newer rollout of the same deployment takes over."""
        if self.is_open:
            self._move(now, state="superseded", note=f"By {by}.")

    def _require(self, *states: str, verb: str) -> None:
        if self.rollout.state not in states:
            raise UsageError(
                f"The rollout {self.rollout.id} is {self.rollout.state}, and cannot be {verb}.",
                hint=f"See 'fieldpost rollout show {self.rollout.id}'.",
            )

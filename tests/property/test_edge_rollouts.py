"""Rollouts under whatever devices say and people do, in any order."""

from __future__ import annotations

from collections import Counter

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from edge.controller import waves
from edge.controller.entities import OPEN, Device, Member, Plan, Rollout
from edge.controller.rollouts import Course, Outcome
from scoring.errors import UsageError

TIMEOUT_S = 100.0
NAMES = [f"d{number}" for number in range(9)]

outcomes = st.sampled_from(
    [
        Outcome("good", "good"),
        Outcome("failed", "reverted", "it broke"),
        Outcome("failed", "refused", "too old"),
        Outcome("moving", "fetching"),
        Outcome("moving", "soaking"),
        Outcome("waiting", "waiting"),
        Outcome("unseen"),
    ]
)


class Rollouts(RuleBasedStateMachine):
    """One rollout, moved to another controller now and then."""

    @initialize(
        steps=st.sampled_from([("1", "100%"), ("30%", "60%"), ("100%",), ("1", "2", "3")]),
        failures=st.sampled_from(["0", "1", "50%", "100%"]),
        offline=st.sampled_from(["fail", "wait"]),
        there=st.sets(st.sampled_from(NAMES)),
    )
    def begin(self, steps: tuple[str, ...], failures: str, offline: str, there: set[str]) -> None:
        self.now = 0.0
        self.online = {name: name in there for name in NAMES}
        self.told: Counter[str] = Counter()
        self.allowed: Counter[str] = Counter(dict.fromkeys(NAMES, 1))
        plan = Plan(
            waves=steps,
            most_failures=failures,
            timeout_s=TIMEOUT_S,
            offline=offline,  # type: ignore[arg-type]
        )
        fleet = [Device(name=name, site="s", online=self.online[name]) for name in NAMES]
        rollout = Rollout(deployment="iris", revision=1, plan=plan)
        self.course = Course(rollout, waves.members("iris:1", plan, fleet))

    @rule(device=st.sampled_from(NAMES), found=outcomes)
    def report(self, device: str, found: Outcome) -> None:
        self.course.report(device, found, self.now)

    @rule(seconds=st.floats(0, TIMEOUT_S * 2))
    def advance(self, seconds: float) -> None:
        self.now += seconds
        before = self.course.rollout.state
        self.course.advance(self.now, self.online)
        told, self.course.told = set(self.course.told), {}
        assert before == "running" or not told
        self.told.update(told)
        assert all(self.told[name] <= self.allowed[name] for name in told)

    @rule(device=st.sampled_from(NAMES))
    def come_or_go(self, device: str) -> None:
        self.online[device] = not self.online[device]
        if self.online[device]:
            self.course.seen(device, self.now)

    @rule(device=st.sampled_from(NAMES))
    def lose(self, device: str) -> None:
        self.course.lose(device, "gone")

    @rule(seconds=st.floats(0, 1e6))
    def nobody_watches(self, seconds: float) -> None:
        self.now += seconds
        self.course.skip(seconds)

    @rule(act=st.sampled_from(["pause", "resume", "retry"]))
    def steer(self, act: str) -> None:
        try:
            again = getattr(self.course, act)(self.now)
        except UsageError:
            return
        told, self.course.told = set(self.course.told), {}
        assert sorted(told) == sorted(again or [])
        self.allowed.update(told)
        self.told.update(told)

    @rule()
    def move(self) -> None:
        """Only what is kept goes along."""
        members = [
            Member(**{name: getattr(m, name) for name in m.__struct_fields__})
            for m in self.course.members
        ]
        self.course = Course(self.course.rollout, members)

    @invariant()
    def counts_are_those_of_the_members(self) -> None:
        if hasattr(self, "course"):
            found = Counter(member.state for member in self.course.members)
            assert self.course.counts() == dict(found)

    @invariant()
    def nobody_is_told_before_the_wave_begins(self) -> None:
        if hasattr(self, "course"):
            wave = self.course.rollout.wave
            for member in self.course.members:
                if member.wave > wave:
                    assert member.state in {"pending", "gone"}

    def _is_running(self) -> bool:
        return hasattr(self, "course") and self.course.rollout.state == "running"

    @invariant()
    def what_failed_too_often_halts(self) -> None:
        if not self._is_running():
            return
        self.course.advance(self.now, self.online)
        self.told.update(set(self.course.told))
        self.course.told = {}
        if not self._is_running():
            return
        for wave in range(self.course.rollout.wave + 1):
            members = [m for m in self.course.members if m.wave == wave]
            bad = [m for m in members if m.state in {"failed", "silent"} and not m.excused]
            assert len(bad) <= waves.allowed(self.course.rollout.plan, len(members))

    @invariant()
    def what_is_complete_has_nobody_left(self) -> None:
        if hasattr(self, "course") and self.course.rollout.state == "complete":
            assert not any(member.state == "pending" for member in self.course.members)
        if hasattr(self, "course"):
            assert self.course.is_open == (self.course.rollout.state in OPEN)


Rollouts.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestRollouts = Rollouts.TestCase

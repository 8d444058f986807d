"""What telemetry says of waves."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pytest

from edge.controller import criteria, waves
from edge.controller.entities import Device, Member, Plan, Rollout
from edge.controller.rollouts import Course, Outcome
from edge.telemetry.metrics import Traffic
from scoring.errors import UsageError

GOOD = Outcome("good", "good")


def traffic(requests: float, errors: float = 0.0, latency_s: float = 0.01) -> Traffic:
    return Traffic(requests=requests, errors=errors, latency={latency_s: requests})


@pytest.mark.parametrize(
    ("plan", "answered", "found"),
    [
        (Plan(most_errors=0.1), traffic(100, 10), ""),
        (Plan(most_errors=0.1), traffic(100, 11), "11.0% of 100 requests failed"),
        (Plan(most_errors=0.0), traffic(19, 19), ""),
        (Plan(most_errors=0.0), traffic(20, 1), "5.0% of 20 requests failed"),
        (Plan(most_latency_s=0.05), traffic(100, 0, 0.05), ""),
        (Plan(most_latency_s=0.05), traffic(100, 0, 0.1), "took up to 0.1 s"),
        (Plan(most_latency_s=0.05), traffic(100, 0, math.inf), "longer than can be told"),
        (Plan(), traffic(100, 100, math.inf), ""),
    ],
)
def test_complaints(plan: Plan, answered: Traffic, found: str) -> None:
    assert found in criteria.complaint(plan, answered)
    assert bool(found) == bool(criteria.complaint(plan, answered))


@pytest.mark.parametrize(
    "wrong",
    [
        {"most_errors": 1.1},
        {"most_errors": -0.1},
        {"observe_s": -1.0},
        {"most_latency_s": math.inf},
    ],
)
def test_numbers_that_are_none(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        waves.check(Plan(**wrong))  # type: ignore[arg-type]


class Run:
    def __init__(self, **plan: float) -> None:
        self.plan = Plan(waves=("1", "100%"), observe_s=60.0, **plan)  # type: ignore[arg-type]
        devices = [Device(name=f"d{n}", site="s", online=True) for n in range(3)]
        rollout = Rollout(deployment="iris", revision=1, plan=self.plan)
        self.course = Course(rollout, waves.members("iris:1", self.plan, devices))
        self.now = 1000.0
        self.answered: dict[str, Traffic] = {}
        self.asked: list[Mapping[str, float]] = []

    def ask(self, devices: Mapping[str, float]) -> Traffic:
        self.asked.append(dict(devices))
        found = Traffic()
        for device in devices:
            found = found.plus(self.answered.get(device, Traffic()))
        return found

    def step(self, seconds: float) -> list[str]:
        self.now += seconds
        self.course.judge(self.now, self.ask)
        self.course.advance(self.now, {f"d{n}": True for n in range(3)})
        told, self.course.told = sorted(self.course.told), {}
        return told

    @property
    def state(self) -> str:
        return self.course.rollout.state

    @property
    def members(self) -> dict[str, Member]:
        return {one.device: one for one in self.course.members}


def test_a_wave_is_observed_before_the_next_and_before_the_end() -> None:
    run = Run(most_errors=0.1)
    (first,) = run.step(0)
    run.course.report(first, GOOD, run.now)
    assert run.step(59) == []
    rest = run.step(2)
    assert len(rest) == 2
    for name in rest:
        run.course.report(name, GOOD, run.now)
    run.step(59)
    assert run.state == "running"
    run.step(2)
    assert run.state == "complete"
    assert {name for asked in run.asked for name in asked} == set(run.members)


def test_errors_halt_and_what_was_told_is_forgiven_by_who_resumes() -> None:
    run = Run(most_errors=0.1)
    (first,) = run.step(0)
    run.course.report(first, GOOD, run.now)
    since = run.now
    run.answered[first] = traffic(30, 10)
    assert run.step(10) == []
    assert run.state == "halted"
    assert f"33.3% of 30 requests failed, and 10.0% may: {first}." in run.course.rollout.note
    assert run.asked[0] == {first: since}
    run.course.resume(run.now)
    run.asked.clear()
    run.answered.clear()
    run.step(1)
    assert run.asked[0] == {first: since + 10}
    assert run.state == "running"


def test_nothing_is_asked_where_nothing_decides() -> None:
    run = Run()
    (first,) = run.step(0)
    run.course.report(first, GOOD, run.now)
    run.answered[first] = traffic(30, 30)
    run.step(1)
    assert run.asked == []

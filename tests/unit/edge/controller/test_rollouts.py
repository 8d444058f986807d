"""The rollout's machine: waves, halts, silence, people."""

from __future__ import annotations

from typing import Any

import pytest

from edge.controller import waves
from edge.controller.entities import Device, Member, Plan, Rollout
from edge.controller.rollouts import Course, Outcome, outcome
from edge.protocol.messages import Failure, Module, ModuleState
from scoring.errors import UsageError

GOOD = Outcome("good", "good")
BAD = Outcome("failed", "reverted", "main: it broke")
PACKAGE = "sha256:" + "a" * 64


class Run:
    """A rollout to devices `d0`, `d1`, … that are all there."""

    def __init__(self, count: int = 10, *, offline: tuple[str, ...] = (), **plan: Any) -> None:
        self.now = 1000.0
        self.names = [f"d{number}" for number in range(count)]
        self.online = {name: name not in offline for name in self.names}
        fleet = [Device(name=one, site="s", online=self.online[one]) for one in self.names]
        if "offline_" in plan:
            plan["offline"] = plan.pop("offline_")
        given: dict[str, Any] = {"waves": ("1", "50%", "100%"), "timeout_s": 60.0}
        made = Plan(**(given | plan))
        rollout = Rollout(deployment="iris", revision=1, plan=made)
        self.course = Course(rollout, waves.members("iris:1", made, fleet))

    def step(self, seconds: float = 0.0) -> list[str]:
        """Lets time pass; the devices that were told."""
        self.now += seconds
        self.course.advance(self.now, self.online)
        told, self.course.told = sorted(self.course.told), {}
        return told

    def say(self, found: Outcome, *names: str) -> None:
        for name in names:
            self.course.report(name, found, self.now)

    @property
    def state(self) -> str:
        return self.course.rollout.state

    @property
    def counts(self) -> dict[str, int]:
        return self.course.counts()


def test_waves_follow_each_other_when_all_are_good() -> None:
    run = Run()
    first = run.step()
    assert (len(first), run.counts) == (1, {"pending": 9, "started": 1})
    assert run.step(1) == []
    run.say(Outcome("moving", "fetching"), *first)
    assert run.step(1) == []
    run.say(GOOD, *first)
    second = run.step(1)
    assert len(second) == 4
    run.say(GOOD, *second[:3])
    assert run.step(1) == []
    run.say(GOOD, *second)
    third = run.step(1)
    assert len(third) == 5
    run.say(GOOD, *third)
    run.step(1)
    assert (run.state, run.counts) == ("complete", {"good": 10})


def test_a_failure_halts_and_says_which() -> None:
    run = Run()
    (first,) = run.step()
    run.say(BAD, first)
    assert run.step(1) == []
    assert run.state == "halted"
    assert f"{first} (main: it broke)" in run.course.rollout.note
    assert run.step(1000) == []


def test_as_many_as_were_allowed_may_fail() -> None:
    run = Run(10, waves=("50%",), most_failures="20%")
    first = run.step()
    run.say(BAD, first[0])
    run.say(GOOD, *first[1:])
    second = run.step(1)
    assert len(second) == 5
    run.say(BAD, *second[:2])
    run.step()
    assert run.state == "halted"


def test_silence_is_failure_and_heals() -> None:
    run = Run()
    (first,) = run.step()
    run.step(59)
    assert run.state == "running"
    run.step(2)
    assert (run.state, run.counts["silent"]) == ("halted", 1)
    assert "never heard" in run.course.rollout.note
    run.say(GOOD, first)
    assert run.counts == {"good": 1, "pending": 9}
    run.course.resume(run.now)
    assert len(run.step()) == 4


def test_progress_is_no_silence() -> None:
    run = Run()
    (first,) = run.step()
    for phase in ("fetching", "verifying", "staging", "probing", "soaking"):
        run.step(50)
        run.say(Outcome("moving", phase), first)
    run.say(Outcome("moving", "soaking"), first)  # the same again is no progress
    run.step(50)
    run.say(Outcome("moving", "soaking"), first)
    run.step(11)
    assert run.state == "halted"


def test_devices_that_wait_for_their_window_are_not_silent() -> None:
    run = Run()
    (first,) = run.step()
    run.say(Outcome("waiting", "waiting"), first)
    run.step(5000)
    assert run.state == "running"
    run.online[first] = False
    run.step(1)
    assert run.state == "halted"


def test_time_in_which_nobody_watched_does_not_count() -> None:
    run = Run()
    run.step()
    run.now += 10_000
    run.course.skip(10_000)
    run.step(30)
    assert run.state == "running"
    run.step(31)
    assert run.state == "halted"


def test_devices_that_are_away_may_be_waited_for() -> None:
    run = Run(4, offline=("d0", "d1"), waves=("50%",), offline_="wait")
    told = run.step()
    run.say(GOOD, *told)
    assert run.step(1) == ["d0", "d1"]
    run.step(1)
    assert run.state == "complete"
    assert "2 are offline" in run.course.rollout.note
    run.say(GOOD, "d0")
    assert run.counts == {"good": 3, "started": 1}


def test_without_any_proof_devices_that_are_away_are_waited_for() -> None:
    run = Run(4, offline=("d0", "d1", "d2", "d3"), waves=("1",), offline_="wait")
    (first,) = run.step()
    assert run.step(10_000) == []
    run.course.seen(first, run.now)
    run.step(61)
    assert run.state == "halted"


def test_pause_tells_nobody_and_resume_goes_on() -> None:
    run = Run()
    (first,) = run.step()
    run.course.pause(run.now)
    run.say(GOOD, first)
    assert run.step(1) == []
    run.course.resume(run.now)
    assert len(run.step()) == 4
    with pytest.raises(UsageError, match="cannot be resumed"):
        run.course.resume(run.now)


def test_resume_excuses_what_failed_but_not_what_fails_then() -> None:
    run = Run()
    (first,) = run.step()
    run.say(BAD, first)
    run.step()
    run.course.resume(run.now)
    told = run.step(1)
    assert len(told) == 4
    run.say(BAD, told[0])
    run.step(1)
    assert run.state == "halted"


def test_retry_tells_again_and_goes_on() -> None:
    run = Run()
    (first,) = run.step()
    run.say(BAD, first)
    run.step()
    with pytest.raises(UsageError, match="did not fail"):
        run.course.retry(run.now, ["d99"])
    assert run.course.retry(run.now) == [first]
    assert (run.state, sorted(run.course.told)) == ("running", [first])
    run.step(1)
    run.say(GOOD, first)
    assert len(run.step(1)) == 4


def test_abort_takes_back_what_is_not_good() -> None:
    run = Run(waves=("50%",), most_failures="5")
    told = run.step()
    run.say(GOOD, *told[:2])
    run.say(BAD, told[2])
    assert run.course.abort(run.now) == told[2:]
    assert run.counts == {"good": 2, "pending": 5, "withdrawn": 3}
    assert run.step(1000) == []
    for act in (run.course.pause, run.course.resume, run.course.abort, run.course.retry):
        with pytest.raises(UsageError):
            act(run.now)
    other = Run(waves=("50%",))
    told = other.step()
    other.say(GOOD, *told)
    assert other.course.abort(other.now, revert=True) == told


def test_a_version_that_breaks_later_halts() -> None:
    run = Run()
    (first,) = run.step()
    run.say(GOOD, first)
    run.step(1)
    run.say(BAD, first)
    run.step(1)
    assert run.state == "halted"


def test_lost_devices_are_not_waited_for() -> None:
    run = Run()
    (first,) = run.step()
    run.course.lose(first, "it was removed")
    assert len(run.step(1)) == 4
    run.say(BAD, first)
    run.step(1)
    assert run.state == "running"


def test_waves_wait_for_each_other_if_asked() -> None:
    run = Run(between_s=100.0)
    (first,) = run.step()
    run.say(GOOD, first)
    assert run.step(99) == []
    assert len(run.step(2)) == 4


def test_nothing_to_do_is_complete_at_once() -> None:
    run = Run(0)
    run.step()
    assert run.state == "complete"


def test_what_was_kept_goes_on_elsewhere() -> None:
    run = Run()
    (first,) = run.step()
    again = Course(run.course.rollout, [Member(**_plain(m)) for m in run.course.members])
    again.report(first, GOOD, run.now)
    again.advance(run.now, run.online)
    assert (len(again.told), again.counts()["good"]) == (4, 1)


def _plain(member: Member) -> dict[str, Any]:
    return {name: getattr(member, name) for name in member.__struct_fields__}


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (ModuleState(phase="good", wanted=PACKAGE, package=PACKAGE, healthy=True), "good"),
        (ModuleState(phase="good", wanted=PACKAGE, package=PACKAGE, healthy=False), "moving"),
        (ModuleState(phase="good", wanted=PACKAGE, package="", healthy=True), "moving"),
        (ModuleState(phase="good", wanted="sha256:" + "b" * 64, healthy=True), "moving"),
        (ModuleState(phase="fetching", wanted=PACKAGE), "moving"),
        (ModuleState(phase="waiting", wanted=PACKAGE), "waiting"),
        (ModuleState(phase="reverted", wanted=PACKAGE, package="x"), "failed"),
        (ModuleState(phase="failed", wanted=PACKAGE), "failed"),
        (ModuleState(phase="stopped", wanted=PACKAGE), "failed"),
        (None, "moving"),
    ],
)
def test_what_reports_mean(state: ModuleState | None, expected: str) -> None:
    modules = {"main": Module(package=PACKAGE)}
    device = Device(name="d", site="s", observed=3, modules={"main": state} if state else {})
    assert outcome(device, 3, modules).kind == expected
    assert outcome(device, 4, modules).kind == "unseen"
    device.refused = Failure(code="rollback", message="Older.")
    assert outcome(device, 4, modules) == Outcome("failed", "refused", "rollback: Older.")
    device.refused = Failure(code="unreachable", message="Away.")  # it tries again by itself
    assert outcome(device, 4, modules) == Outcome("moving", "refused", "unreachable: Away.")

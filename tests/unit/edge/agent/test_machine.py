"""The state machine, case by case; `tests/property/test_edge_machine.py` has the rest."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from edge.agent import steps
from edge.agent.machine import MOST_BOOTS, Machine, judge
from edge.agent.states import DeviceState, Live, Track, reported
from edge.agent.windows import Local
from edge.protocol.messages import Desired, Failure, Module, Phase, Soak, Source, Window

SOURCE = Source(url="https://c")
NO = Failure(code="unreachable", message="no")


def module(number: int, *, release: int = 0, soak_s: float = 10, **more: Any) -> Module:
    digest = f"sha256:{number:064x}"
    return Module(package=digest, release=release, soak=Soak(seconds=soak_s), **more)


class Bench:
    """A machine, and shorthand for what happens to it."""

    def __init__(self, state: DeviceState | None = None) -> None:
        self.machine = Machine(state, spread=lambda: 1.0)
        self.time = 0.0
        self.minute = 600
        self.generation = state.generation if state else 0
        self.effects: list[Any] = self.give(steps.Boot())

    def give(self, event: steps.Event) -> list[Any]:
        now = steps.Moment(self.time, Local(0, self.minute))
        self.effects = self.machine.take(event, now)
        return self.effects

    def want(self, window: Window | None = None, **modules: Module) -> list[Any]:
        self.generation += 1
        desired = Desired(
            site="s",
            device="d",
            generation=self.generation,
            issued_at=0,
            modules=modules,
            sources=(SOURCE,),
            window=window,
            rate=9,
        )
        return self.give(steps.Wanted(desired))

    def done(self, name: str = "m") -> list[Any]:
        track = self.track(name)
        return self.give(steps.Done(name, track.attempt, track.phase))

    def fail(self, *, retryable: bool = False) -> list[Any]:
        track = self.track()
        return self.give(steps.Failed("m", track.attempt, track.phase, NO, retryable))

    def until(self, phase: Phase) -> None:
        while self.track().phase != phase:
            self.done()

    def wait(self, seconds: float) -> list[Any]:
        self.time += seconds
        return self.give(steps.Tick())

    def measured(self, *, healthy: bool = True, requests: int = 0, failed: int = 0) -> list[Any]:
        attempt = self.track().attempt
        return self.give(steps.Measured("m", attempt, healthy, requests, failed))

    def good(self, wanted: Module) -> None:
        self.want(m=wanted)
        self.until("soaking")
        self.wait(wanted.soak.seconds + 1)
        self.measured()
        assert self.track().phase == "good"

    def track(self, name: str = "m") -> Track:
        return self.machine.state.tracks[name]

    @property
    def refusal(self) -> str:
        refused = self.machine.state.refused
        return refused.code if refused else ""

    @property
    def failure(self) -> str:
        failure = self.track().failure
        return failure.code if failure else ""

    def restart(self) -> Bench:
        text = msgspec.json.encode(self.machine.state)
        return Bench(msgspec.json.decode(text, type=DeviceState))


def kinds(effects: list[Any]) -> list[str]:
    return [type(effect).__name__ for effect in effects]


def test_from_nothing_to_good() -> None:
    bench = Bench()
    one = module(1, release=4)
    fetch, _ = bench.want(m=one)
    assert fetch == steps.Fetch("m", 1, one, (SOURCE,), 9)
    assert kinds(bench.done()) == ["Verify"]
    assert kinds(bench.done()) == ["Stage"]
    assert kinds(bench.done()) == ["Probe"]
    assert kinds(bench.done()) == ["Switch"]
    assert bench.done() == []
    assert bench.track().active == one
    assert bench.track().good is None
    assert bench.wait(1) == []
    assert kinds(bench.wait(1)) == ["Measure"]
    assert bench.measured() == []
    assert kinds(bench.wait(9)) == ["Measure"]
    assert bench.measured() == [steps.Clean(frozenset({one.package}))]
    assert bench.track() == Track(phase="good", wanted=one, active=one, good=one, attempt=1)
    assert bench.machine.state.floors == {"m": 4}
    assert not bench.machine.busy


@pytest.mark.parametrize("phase", ["fetching", "verifying", "staging", "probing"])
def test_what_fails_before_the_switch_leaves_the_old_one_alone(phase: Phase) -> None:
    bench = Bench()
    bench.good(module(1))
    bench.want(m=module(2))
    bench.until(phase)
    assert kinds(bench.fail()) == ["Cancel", "Clean"]
    assert (bench.track().phase, bench.track().failure) == ("failed", NO)
    assert bench.track().active == module(1)
    assert bench.wait(1e6) == []  # not by itself
    assert kinds(bench.want(m=module(2))) == ["Fetch", "Clean"]


def test_what_may_pass_is_tried_again_for_ever_with_growing_pauses() -> None:
    bench = Bench()
    bench.want(m=module(1))
    pauses = []
    for _ in range(12):
        bench.fail(retryable=True)
        assert bench.track().phase == "failed"
        began = bench.time
        while not bench.wait(1):
            assert bench.machine.busy
        pauses.append(round(bench.time - began))
    assert pauses[:4] == [5, 10, 20, 40]
    assert pauses[-1] == 3600
    bench.until("soaking")


@pytest.mark.parametrize("how", ["crash", "unhealthy", "errors", "silence"])
def test_what_fails_after_the_switch_goes_back(how: str) -> None:
    bench = Bench()
    bench.good(module(1))
    bench.want(m=msgspec.structs.replace(module(2), soak=Soak(seconds=10, most_errors=0.1)))
    bench.until("soaking")
    if how == "crash":
        bench.give(steps.Crashed("m", module(1).package, NO))  # the old one, late
        assert bench.track().phase == "soaking"
        effects = bench.give(steps.Crashed("m", module(2).package, NO))
    elif how == "silence":
        assert kinds(bench.wait(2)) == ["Measure"]
        effects = bench.wait(61)
    else:
        bench.wait(2)
        failed = 3 if how == "errors" else 0
        effects = bench.measured(healthy=how != "unhealthy", requests=25, failed=failed)
    assert kinds(effects) == ["Cancel", "Revert"]
    assert effects[1].run == module(1)
    assert bench.track().active == module(1)
    assert bench.restart().effects == [
        steps.Start("m", module(1)),
        steps.Revert("m", bench.track().attempt + 1, module(1)),
    ]
    bench.done()
    assert bench.track().phase == "reverted"
    assert bench.track().failure is not None


def test_a_revert_that_fails_is_tried_again_and_blocks_nothing() -> None:
    bench = Bench()
    bench.good(module(1))
    bench.want(m=module(2))
    bench.until("soaking")
    bench.give(steps.Crashed("m", module(2).package, NO))
    assert kinds(bench.fail()) == ["Cancel"]
    assert kinds(bench.wait(6)) == ["Revert"]
    bench.fail()
    assert "Fetch" in kinds(bench.want(m=module(3)))


def test_a_newer_wish_while_one_soaks_goes_back_first() -> None:
    bench = Bench()
    bench.good(module(1))
    bench.want(m=module(2))
    bench.until("soaking")
    assert kinds(bench.want(m=module(3))) == ["Cancel", "Revert", "Clean"]
    (fetch,) = bench.done()
    assert fetch.wanted == module(3)
    bench.until("soaking")
    assert bench.track().good == module(1)
    bench.want(m=module(1))  # and back again
    bench.done()
    assert bench.track().phase == "good"
    assert bench.track().active == module(1)


def test_a_release_goes_down_on_no_way() -> None:
    bench = Bench()
    bench.good(module(1, release=5))
    bench.want()
    bench.done()
    assert bench.track().phase == "stopped"
    bench.want(m=module(2, release=4))
    assert bench.refusal == "verification_failed"
    assert bench.machine.state.generation == 2
    bench.want(m=module(2, release=5))
    assert bench.refusal == ""
    bench.until("soaking")


def test_another_release_of_what_runs_is_verified_and_nothing_else() -> None:
    bench = Bench()
    bench.good(module(1, release=1))
    bench.want(m=module(1, release=9))
    assert bench.machine.state.floors == {"m": 1}
    bench.done()
    assert bench.track().phase == "verifying"
    assert kinds(bench.done()) == ["Clean"]
    assert bench.machine.state.floors == {"m": 9}
    assert bench.track().phase == "good"


def test_two_modules_cannot_share_a_port() -> None:
    bench = Bench()
    bench.want(a=module(1, port=80), b=module(2, port=80))
    assert bench.refusal == "usage"
    assert not bench.machine.state.tracks


def test_it_switches_and_stops_within_its_window_only() -> None:
    night = Window(begins=60, ends=120)
    bench = Bench()
    bench.want(night, m=module(1))
    for _ in range(3):
        bench.done()
    assert bench.track().phase == "waiting"
    assert bench.wait(1e5) == []
    assert kinds(bench.restart().effects) == ["Fetch"]  # and comes to wait again
    bench.minute = 60
    assert kinds(bench.wait(1)) == ["Probe"]
    bench.until("soaking")
    bench.wait(11)
    bench.measured()
    bench.minute = 600
    assert kinds(bench.want(night)) == ["Clean"]
    assert bench.track().phase == "waiting"
    bench.minute = 61
    assert kinds(bench.wait(1)) == ["Stop"]


@pytest.mark.parametrize(
    ("phase", "becomes"),
    [
        ("fetching", "failed"),
        ("verifying", "failed"),
        ("staging", "failed"),
        ("probing", "failed"),
        ("switching", "reverting"),
    ],
)
def test_every_phase_has_a_deadline(phase: Phase, becomes: Phase) -> None:
    bench = Bench()
    bench.want(m=module(1, timeout_s=100))
    bench.until(phase)
    assert bench.wait(99) == []
    bench.wait(1)
    assert bench.track().phase == becomes
    assert bench.failure == "deadline_exceeded"
    assert bench.track().retry == (phase in {"fetching", "verifying", "staging"})


def test_late_answers_do_no_harm() -> None:
    bench = Bench()
    bench.want(m=module(1))
    old = steps.Done("m", 1, "fetching")
    bench.want(m=module(2))
    state = bench.machine.state
    for event in (
        old,
        steps.Failed("m", 1, "fetching", NO),
        steps.Done("m", 2, "probing"),
        steps.Measured("m", 2, False),
        steps.Done("gone", 1, "fetching"),
        steps.Crashed("gone", "", NO),
    ):
        assert bench.give(event) == []
    assert bench.machine.state is state


def test_one_that_brings_the_agent_down_is_given_up() -> None:
    bench = Bench()
    bench.good(module(1))
    bench.want(m=module(2))
    bench.until("soaking")
    for _ in range(MOST_BOOTS):
        bench = bench.restart()
        assert bench.effects == [steps.Start("m", module(2))]
    bench = bench.restart()
    assert kinds(bench.effects) == ["Start", "Cancel", "Revert"]
    assert bench.effects[0].run == module(1)
    assert bench.track().active == module(1)


def test_modules_do_not_wait_for_each_other() -> None:
    bench = Bench()
    bench.want(a=module(1), b=module(2))
    bench.done("b")
    assert (bench.track("a").phase, bench.track("b").phase) == ("fetching", "verifying")


def test_the_previous_one_is_kept_while_there_is_room() -> None:
    bench = Bench()
    bench.good(module(1))
    bench.good(module(2))
    (clean,) = bench.effects
    assert clean.keep == {module(2).package}
    assert clean.spare == {module(1).package}


def test_what_is_reported() -> None:
    bench = Bench()
    bench.good(module(1, release=3))
    bench.want(m=module(2, release=4))
    found = reported(bench.machine.state, {"m": Live(healthy=True, port=8080, restarts=2)})["m"]
    assert (found.phase, found.package, found.release) == ("fetching", module(1).package, 3)
    assert (found.wanted, found.healthy, found.port, found.restarts) == (
        module(2).package,
        True,
        8080,
        2,
    )
    assert reported(bench.machine.state, {})["m"].healthy is False


@pytest.mark.parametrize(
    ("requests", "failed", "latency_s", "last", "fine"),
    [
        (0, 0, 9.0, True, True),
        (19, 19, 9.0, False, True),
        (19, 19, 0.1, True, False),
        (20, 2, 0.1, False, True),
        (20, 3, 0.1, False, False),
        (100, 0, 0.6, False, False),
        (100, 0, 0.5, True, True),
    ],
)
def test_what_speaks_against_a_version(
    requests: int, failed: int, latency_s: float, last: bool, fine: bool
) -> None:
    soak = Soak(seconds=1, most_errors=0.1, most_latency_s=0.5)
    shown = steps.Measured("m", 1, True, requests, failed, latency_s)
    assert (judge(shown, soak, last=last) is None) == fine

"""The agent's state machine against a device that does anything, and dies at any moment."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from edge.agent import steps
from edge.agent.machine import Machine
from edge.agent.states import DeviceState, Track, same_run
from edge.agent.windows import Local
from edge.protocol.messages import Desired, Failure, Module, Phase, Soak, Window

NAMES = ("camera", "meter")
PHASES: dict[type, Phase] = {
    steps.Fetch: "fetching",
    steps.Verify: "verifying",
    steps.Stage: "staging",
    steps.Probe: "probing",
    steps.Switch: "switching",
    steps.Revert: "reverting",
    steps.Stop: "switching",
}
FAILURE = Failure(code="unreachable", message="no")
NIGHT = Window(begins=120, ends=240)


def package(number: int) -> str:
    return f"sha256:{number:064x}"


modules = st.builds(
    Module,
    package=st.integers(1, 4).map(package),
    release=st.integers(0, 2),
    soak=st.sampled_from([Soak(seconds=0), Soak(seconds=20, most_errors=0.1)]),
)


class Device(RuleBasedStateMachine):
    """Carries effects out, or not, and checks what the machine promises."""

    def __init__(self) -> None:
        super().__init__()
        self.machine = Machine(spread=lambda: 0.5)
        self.journal = msgspec.json.encode(self.machine.state)
        self.time = 0.0
        self.minute = 130
        self.pending: list[Any] = []
        self.generation = 0
        self.probed: set[tuple[str, str]] = set()
        self.soaked: set[tuple[str, str]] = set()
        self.answering: dict[str, Module | None] = {}

    @property
    def now(self) -> steps.Moment:
        return steps.Moment(self.time, Local(0, self.minute))

    def give(self, event: steps.Event) -> None:
        before = self.machine.state
        effects = self.machine.take(event, self.now)
        self.journal = msgspec.json.encode(self.machine.state)
        for effect in effects:
            self.carry(effect)
        for name, track in self.machine.state.tracks.items():
            old = before.tracks.get(name, Track())
            assert track.attempt >= old.attempt
            if track.phase == "probing" != old.phase and before.desired is not None:
                desired = self.machine.state.desired
                assert desired is not None
                assert desired.window is None or 120 <= self.minute < 240

    def carry(self, effect: steps.Effect) -> None:
        match effect:
            case steps.Start():
                self.answering[effect.module] = effect.run
            case steps.Cancel():
                self.pending = [
                    one
                    for one in self.pending
                    if one.module != effect.module or one.attempt > effect.attempt
                ]
            case steps.Clean():
                kept = effect.keep | effect.spare
                for track in self.machine.state.tracks.values():
                    for module in (track.wanted, track.active, track.good, track.previous):
                        assert module is None or module.package in kept
            case _:
                self.pending.append(effect)

    @initialize()
    def boot(self) -> None:
        self.give(steps.Boot())

    @rule(
        wanted=st.dictionaries(st.sampled_from(NAMES), modules),
        window=st.sampled_from([None, NIGHT]),
    )
    def want(self, wanted: dict[str, Module], window: Window | None) -> None:
        self.generation += 1
        desired = Desired(
            site="s",
            device="d",
            generation=self.generation,
            issued_at=self.time,
            modules=wanted,
            window=window,
        )
        floors = dict(self.machine.state.floors)
        self.give(steps.Wanted(desired))
        low = [name for name, module in wanted.items() if module.release < floors.get(name, 0)]
        assert bool(low) == (self.machine.state.refused is not None)
        assert (self.machine.state.generation == self.generation) != bool(low)

    @rule(generation=st.integers(1, 3))
    def replay(self, generation: int) -> None:
        if generation <= self.machine.state.generation:
            state = self.machine.state
            self.give(
                steps.Wanted(Desired(site="s", device="d", generation=generation, issued_at=0))
            )
            assert self.machine.state is state

    @rule(data=st.data(), works=st.sampled_from([True, True, True, True, False]))
    def carry_out(self, data: st.DataObject, works: bool) -> None:
        if not self.pending:
            return
        effect = self.pending.pop(data.draw(st.integers(0, len(self.pending) - 1)))
        self.answer(effect, works=works, retryable=data.draw(st.booleans()))

    def answer(self, effect: Any, *, works: bool, retryable: bool = True) -> None:
        name = effect.module
        if isinstance(effect, steps.Measure):
            running = self.answering.get(name)
            if works and running:
                self.soaked.add((name, running.package))
            requests = 100
            self.give(
                steps.Measured(
                    name,
                    effect.attempt,
                    healthy=works,
                    requests=requests,
                    failed=0 if works else requests,
                )
            )
            return
        phase = PHASES[type(effect)]
        if not works:
            self.give(steps.Failed(name, effect.attempt, phase, FAILURE, retryable))
            return
        match effect:
            case steps.Probe():
                self.probed.add((name, effect.wanted.package))
            case steps.Switch():
                assert (name, effect.wanted.package) in self.probed
                self.answering[name] = effect.wanted
            case steps.Revert():
                self.answering[name] = effect.run
            case steps.Stop():
                self.answering[name] = None
        self.give(steps.Done(name, effect.attempt, phase))

    @rule(seconds=st.sampled_from([1.0, 25.0, 700.0, 4000.0]))
    def wait(self, seconds: float) -> None:
        self.time += seconds
        self.give(steps.Tick())

    @rule()
    def turn(self) -> None:
        self.minute = 130 if self.minute != 130 else 600
        self.give(steps.Tick())

    @rule(name=st.sampled_from(NAMES))
    def crash(self, name: str) -> None:
        running = self.answering.get(name)
        if running is not None:
            self.give(steps.Crashed(name, running.package, FAILURE))

    @rule()
    def die(self) -> None:
        """The agent is killed, and begins again from the journal alone."""
        self.pending = []
        self.answering = {}
        self.machine = Machine(
            msgspec.json.decode(self.journal, type=DeviceState), spread=lambda: 0.5
        )
        self.time += 1
        self.give(steps.Boot())
        for name, track in self.machine.state.tracks.items():
            if track.phase != "reverting":
                assert same_run(self.answering.get(name), track.active)

    @invariant()
    def only_what_was_proven(self) -> None:
        for name, track in self.machine.state.tracks.items():
            if track.active is not None:
                assert (name, track.active.package) in self.probed
            if track.good is not None:
                assert (name, track.good.package) in self.soaked
                assert track.good.release <= self.machine.state.floors[name]
            if track.phase == "good":
                assert track.active == track.good == track.wanted
            if track.phase in {"failed", "fetching", "verifying", "staging"} and track.good:
                assert track.active == track.good
            if track.phase in {"failed", "reverted"}:
                assert track.failure is not None

    def teardown(self) -> None:
        """Whatever happened: from here on all works, and the device comes to rest."""
        self.minute = 130
        for _ in range(400):
            if self.pending:
                self.answer(self.pending.pop(0), works=True)
            elif self.machine.busy:
                self.wait(60.0)
            else:
                break
        assert not self.machine.busy
        desired = self.machine.state.desired
        for name, track in self.machine.state.tracks.items():
            assert track.settled
            wanted = desired.modules.get(name) if desired else None
            assert track.wanted == wanted
            if track.phase == "good":
                assert same_run(self.answering[name], wanted)
            else:
                assert track.failure is not None or track.phase == "stopped"


Device.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestDevice = Device.TestCase

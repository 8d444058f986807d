"""The state machine of a device: events in, effects out, no I/O and no clock.

    fetching -> verifying -> staging -> (waiting for the window) -> probing -> switching -> soaking
        -> good

Whatever fails before the switch ends in `failed`, with the old version untouched; whatever fails
after it goes by `reverting` to `reverted`. What may pass by itself (a network, a full disk) is
tried again, with growing pauses, for ever; what was wrong with the package is tried again with the
next desired state. Modules do not wait for each other.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from typing import Final

import msgspec

from edge.agent import steps, windows
from edge.agent.states import DeviceState, Track, same_run
from edge.agent.steps import Effect, Event, Moment
from edge.agent.timers import Timers
from edge.protocol.messages import Desired, Failure, Module, Phase, Soak

MOST_BOOTS: Final = 5
"""So often may the agent begin again while one unproven version runs."""

_BEFORE_SWITCH: Final[frozenset[Phase]] = frozenset({"fetching", "verifying", "staging", "probing"})
_MAY_PASS_LATE: Final[frozenset[Phase]] = frozenset({"fetching", "verifying", "staging"})
_DANGEROUS: Final[frozenset[Phase]] = frozenset({"probing", "switching", "soaking"})
_NEXT: Final[dict[Phase, Phase]] = {
    "fetching": "verifying",
    "verifying": "staging",
    "probing": "switching",
}
_FEW_REQUESTS: Final = 20
_STOP_TIMEOUT_S: Final = 120.0


class Machine:
    """What the agent is to do next.

    Args:
        state: As the journal has it; the first event is then `Boot`.
        spread: Gives numbers from 0 to 1, so that a fleet does not try again all at once.

    Attributes:
        state: To be put into the journal before the effects that `take` returned are begun.
    """

    def __init__(
        self, state: DeviceState | None = None, *, spread: Callable[[], float] = random.random
    ) -> None:
        self.state = state or DeviceState()
        self._timers = Timers(spread)

    def take(self, event: Event, now: Moment) -> list[Effect]:
        """Takes an event, and says what it leads to."""
        match event:
            case steps.Boot():
                return self._boot(now)
            case steps.Tick():
                return self._tick(now)
            case steps.Wanted():
                return self._want(event.desired, now)
            case steps.Done():
                return self._done(event, now)
            case steps.Failed():
                return self._failed(event, now)
            case steps.Measured():
                return self._measured(event, now)
            case steps.Crashed():
                return self._crashed(event, now)

    @property
    def busy(self) -> bool:
        """Whether anything is on its way, so that ticks are needed."""
        return not all(track.settled for track in self.state.tracks.values())

    # -- beginning

    def _boot(self, now: Moment) -> list[Effect]:
        resumed: list[Effect] = []
        for name in list(self.state.tracks):
            resumed += self._resume(name, now)
        tracks = self.state.tracks.items()  # what was given up just now is not started again
        starts = [steps.Start(name, track.active) for name, track in tracks if track.active]
        return [*starts, *resumed]

    def _resume(self, name: str, now: Moment) -> list[Effect]:
        track = self.state.tracks[name]
        if track.phase in _DANGEROUS and track.wanted:
            track = self._set(name, track, boots=track.boots + 1)
            if track.boots > MOST_BOOTS:
                return self._give_up_booting(name, track, now)
        if track.phase == "soaking":
            assert track.wanted is not None
            self._timers.soak(name, track.wanted.soak, now)
            return []
        if track.phase == "reverting":
            return self._ask_revert(name, track, now)
        return [] if track.settled else self._begin(name, track, now)

    def _give_up_booting(self, name: str, track: Track, now: Moment) -> list[Effect]:
        failure = _failure(
            "deployment_failed",
            f"The agent had to begin again {track.boots} times while this version was tried.",
            track.phase,
        )
        if track.phase == "soaking":
            return self._revert(name, track, failure, now)
        track = self._set(name, track, boots=0)
        return self._fail(name, track, failure, retryable=True, now=now)

    # -- what is wanted

    def _want(self, desired: Desired, now: Moment) -> list[Effect]:
        if desired.generation <= self.state.generation:
            return []
        refusal = _refusal(desired, self.state.floors)
        if refusal is not None:
            refusal = msgspec.structs.replace(refusal, generation=desired.generation)
            self.state = msgspec.structs.replace(self.state, refused=refusal)
            return []
        old = self.state.tracks
        self.state = msgspec.structs.replace(self.state, desired=desired, refused=None)
        effects: list[Effect] = []
        for name in sorted(desired.modules.keys() | old.keys()):
            effects += self._redirect(name, desired.modules.get(name), now)
        return effects + self._clean()

    def _redirect(self, name: str, wanted: Module | None, now: Moment) -> list[Effect]:
        """Sends a module towards what is wanted now, wherever it is."""
        track = self.state.tracks.get(name, Track())
        if wanted is None and track.phase == "stopped":
            self._forget(name)
            return []
        under_way = not track.settled and name in self.state.tracks
        if under_way and track.wanted == wanted and track.phase != "failed":
            return []  # on its way there already
        stuck = track.phase == "reverting" and track.failures > 0
        track = self._set(
            name, track, wanted=wanted, rejected=None, boots=0, failures=0, retry=False
        )
        if track.phase == "reverting" and not stuck:
            return []  # its answer begins what is wanted
        cancel: list[Effect] = [steps.Cancel(name, track.attempt)] if under_way else []
        if track.phase in {"switching", "soaking"} and track.good:
            return cancel + self._go_back(name, track, now)
        return cancel + self._begin(name, track, now)

    def _go_back(self, name: str, track: Track, now: Moment) -> list[Effect]:
        """To what is proven, before anything else is tried."""
        track = self._set(name, track, phase="reverting", active=track.good, rejected=None)
        return self._ask_revert(name, track, now)

    def _begin(self, name: str, track: Track, now: Moment) -> list[Effect]:
        if track.wanted is None:
            return self._begin_stop(name, track, now)
        if track.wanted.release == (track.good and track.good.release) and _answers(track):
            return self._accept(name, track)
        track = self._set(name, track, attempt=track.attempt + 1, retry=False)
        return self._enter(name, track, "fetching", now)

    def _begin_stop(self, name: str, track: Track, now: Moment) -> list[Effect]:
        if track.active is not None and not self._window_open(now):
            self._set(name, track, phase="waiting", attempt=track.attempt + 1)
            return []
        track = self._set(name, track, attempt=track.attempt + 1)
        return self._enter(name, track, "switching", now)

    # -- from phase to phase

    def _enter(self, name: str, track: Track, phase: Phase, now: Moment) -> list[Effect]:
        """Begins a phase: its deadline and its effect."""
        track = self._set(name, track, phase=phase)
        wanted, attempt = track.wanted, track.attempt
        self._timers.deadline(name, wanted.timeout_s if wanted else _STOP_TIMEOUT_S, now)
        if wanted is None:
            return [steps.Stop(name, attempt)]
        match phase:
            case "fetching":
                desired = self.state.desired
                assert desired is not None
                return [steps.Fetch(name, attempt, wanted, desired.sources, desired.rate)]
            case "verifying":
                return [steps.Verify(name, attempt, wanted)]
            case "staging":
                return [steps.Stage(name, attempt, wanted)]
            case "probing":
                return [steps.Probe(name, attempt, wanted)]
            case _:
                return [steps.Switch(name, attempt, wanted)]

    def _done(self, event: steps.Done, now: Moment) -> list[Effect]:
        name, track = event.module, self._current(event)
        if track is None:
            return []
        if track.phase == "verifying" and _answers(track):  # what was new is its release
            return self._accept(name, track)
        if track.phase in _NEXT:
            return self._enter(name, track, _NEXT[track.phase], now)
        match track.phase:
            case "staging":
                return self._staged(name, track, now)
            case "switching":
                return self._switched(name, track, now)
            case "reverting":
                return self._reverted(name, track, now)
            case _:
                return []

    def _staged(self, name: str, track: Track, now: Moment) -> list[Effect]:
        if self._window_open(now):
            return self._enter(name, track, "probing", now)
        self._timers.clear(name)
        self._set(name, track, phase="waiting", failures=0)
        return []

    def _switched(self, name: str, track: Track, now: Moment) -> list[Effect]:
        if track.wanted is None:
            self._timers.clear(name)
            self._set(
                name, track, phase="stopped", active=None, good=None, previous=None, failure=None
            )
            return self._clean()
        self._timers.soak(name, track.wanted.soak, now)
        self._set(name, track, phase="soaking", active=track.wanted)
        return []

    def _accept(self, name: str, track: Track) -> list[Effect]:
        """What is wanted answers, and has shown what it had to."""
        assert track.wanted is not None
        self._timers.clear(name)
        newer = not same_run(track.good, track.wanted)
        self._set(
            name,
            track,
            phase="good",
            active=track.wanted,
            good=track.wanted,
            previous=track.good if newer else track.previous,
            rejected=None,
            failure=None,
            failures=0,
            boots=0,
            retry=False,
        )
        floors = self.state.floors
        highest = max(floors.get(name, 0), track.wanted.release)
        self.state = msgspec.structs.replace(self.state, floors={**floors, name: highest})
        return self._clean()

    # -- what goes wrong

    def _failed(self, event: steps.Failed, now: Moment) -> list[Effect]:
        track = self._current(event)
        if track is None:
            return []
        return self._broke(event.module, track, event.failure, event.retryable, now)

    def _broke(
        self, name: str, track: Track, failure: Failure, retryable: bool, now: Moment
    ) -> list[Effect]:
        if track.phase in _BEFORE_SWITCH:
            return self._fail(name, track, failure, retryable=retryable, now=now)
        if track.phase == "reverting" or track.wanted is None:
            track = self._set(name, track, failure=failure, failures=track.failures + 1)
            self._timers.retry(name, track.failures, now)
            return [steps.Cancel(name, track.attempt)]
        return self._revert(name, track, failure, now)

    def _fail(
        self, name: str, track: Track, failure: Failure, *, retryable: bool, now: Moment
    ) -> list[Effect]:
        """It never answered: what did, still does."""
        cancelled = track.attempt
        track = self._set(
            name,
            track,
            phase="failed",
            failure=failure,
            failures=track.failures + 1,
            attempt=track.attempt + 1,
            retry=retryable,
        )
        self._timers.clear(name)
        if retryable:
            self._timers.retry(name, track.failures, now)
        return [steps.Cancel(name, cancelled), *self._clean()]

    def _revert(self, name: str, track: Track, failure: Failure, now: Moment) -> list[Effect]:
        cancel = steps.Cancel(name, track.attempt)
        track = self._set(
            name,
            track,
            phase="reverting",
            active=track.good,
            rejected=track.wanted,
            failure=failure,
            failures=0,
        )
        return [cancel, *self._ask_revert(name, track, now)]

    def _ask_revert(self, name: str, track: Track, now: Moment) -> list[Effect]:
        track = self._set(name, track, attempt=track.attempt + 1)
        self._timers.deadline(name, track.good.timeout_s if track.good else _STOP_TIMEOUT_S, now)
        return [steps.Revert(name, track.attempt, track.good)]

    def _reverted(self, name: str, track: Track, now: Moment) -> list[Effect]:
        self._timers.clear(name)
        if track.rejected is None or track.rejected != track.wanted:
            return self._begin(name, track, now)
        self._set(name, track, phase="reverted", failures=0, boots=0)
        return self._clean()

    # -- soaking

    def _measured(self, event: steps.Measured, now: Moment) -> list[Effect]:
        track = self.state.tracks.get(event.module)
        if track is None or track.attempt != event.attempt or track.phase != "soaking":
            return []
        assert track.wanted is not None
        last = self._timers.soaked(event.module, now)
        failure = judge(event, track.wanted.soak, last=last)
        if failure is not None:
            return self._revert(event.module, track, failure, now)
        return self._accept(event.module, track) if last else []

    def _crashed(self, event: steps.Crashed, now: Moment) -> list[Effect]:
        track = self.state.tracks.get(event.module)
        if track is None or track.phase != "soaking" or track.wanted is None:
            return []
        if track.wanted.package != event.package:
            return []
        return self._revert(event.module, track, event.failure, now)

    # -- time

    def _tick(self, now: Moment) -> list[Effect]:
        effects: list[Effect] = []
        for name, track in list(self.state.tracks.items()):
            effects += self._tick_one(name, track, now)
        return effects

    def _tick_one(self, name: str, track: Track, now: Moment) -> list[Effect]:
        if self._timers.retry_due(name, now):
            if track.phase == "reverting":
                return self._ask_revert(name, track, now)
            return self._begin(name, track, now)
        if track.phase == "waiting" and self._window_open(now):
            if track.wanted is None:
                return self._begin_stop(name, track, now)
            return self._enter(name, track, "probing", now)
        if track.phase == "soaking" and self._timers.measure_due(name, now):
            return [steps.Measure(name, track.attempt)]
        if self._timers.overdue(name, now):
            return self._overdue(name, track, now)
        return []

    def _overdue(self, name: str, track: Track, now: Moment) -> list[Effect]:
        failure = _failure(
            "deadline_exceeded", f"It has been {track.phase} for longer than allowed.", track.phase
        )
        return self._broke(name, track, failure, track.phase in _MAY_PASS_LATE, now)

    def _window_open(self, now: Moment) -> bool:
        desired = self.state.desired
        return desired is None or windows.is_open(desired.window, now.local)

    # -- the state

    def _current(self, event: steps.Done | steps.Failed) -> Track | None:
        """The module, if the event is an answer to what it is at."""
        track = self.state.tracks.get(event.module)
        if track is None or (track.attempt, track.phase) != (event.attempt, event.phase):
            return None
        return track

    def _set(self, name: str, track: Track, **changes: object) -> Track:
        new = msgspec.structs.replace(track, **changes)
        tracks = {**self.state.tracks, name: new}
        self.state = msgspec.structs.replace(self.state, tracks=tracks)
        return new

    def _forget(self, name: str) -> None:
        self._timers.clear(name)
        tracks = {other: track for other, track in self.state.tracks.items() if other != name}
        self.state = msgspec.structs.replace(self.state, tracks=tracks)

    def _clean(self) -> list[Effect]:
        return [steps.Clean(self.state.packages(), self.state.previous())]


def judge(shown: steps.Measured, soak: Soak, *, last: bool) -> Failure | None:
    """Why a version that soaks is not good; None where nothing speaks against it.

    Before the end of the soak only what many requests show counts: the first may be the slow or
    the unlucky one.
    """
    if not shown.healthy:
        return _failure("deployment_failed", "It does not answer its probes.", "soaking")
    if not shown.requests or (shown.requests < _FEW_REQUESTS and not last):
        return None
    part = shown.failed / shown.requests
    if part > soak.most_errors:
        text = f"{part:.1%} of {shown.requests} requests failed, and {soak.most_errors:.1%} may."
        return _failure("deployment_failed", text, "soaking")
    if soak.most_latency_s and shown.latency_s > soak.most_latency_s:
        text = (
            f"The slowest hundredth of requests took {shown.latency_s:.3f} s, and "
            f"{soak.most_latency_s:.3f} s may be."
        )
        return _failure("deployment_failed", text, "soaking")
    return None


def _answers(track: Track) -> bool:
    """Whether what is wanted is proven already, and answers."""
    return same_run(track.wanted, track.good) and same_run(track.active, track.good)


def _refusal(desired: Desired, floors: dict[str, int]) -> Failure | None:
    for name, module in desired.modules.items():
        if module.release < floors.get(name, 0):
            return _failure(
                "verification_failed",
                f"Generation {desired.generation} asks for release {module.release} of {name}, and "
                f"release {floors[name]} was good here: a device goes to no lower one.",
            )
    port = _taken_twice(module.port for module in desired.modules.values() if module.port)
    if port:
        text = f"Generation {desired.generation} gives port {port} to two modules."
        return _failure("usage", text)
    return None


def _taken_twice(ports: Iterable[int]) -> int:
    seen: set[int] = set()
    for port in ports:
        if port in seen:
            return port
        seen.add(port)
    return 0


def _failure(code: str, message: str, phase: str = "") -> Failure:
    return Failure(code=code, message=message, phase=phase)

"""What a device fetches, unpacks and runs, made up: each step takes its time, and may fail."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from edge.agent import steps
from edge.agent.states import Live
from edge.agent.steps import Effect, Event
from edge.agent.supervisor import failure_of
from edge.protocol.messages import Failure, Module, Phase
from edge.simulator.faults import FailingPhase, Fate
from edge.simulator.timing import Later, Time
from scoring.errors import FieldpostError

_FIRST_PORT: Final = 20_000
_TEXTS: Final[dict[FailingPhase, str]] = {
    "fetching": "The source breaks off (simulated).",
    "staging": "The package cannot be unpacked (simulated).",
    "probing": "The candidate answers 500 to its probe (simulated).",
    "soaking": "Half of the requests fail (simulated).",
}

Long = (
    steps.Fetch
    | steps.Verify
    | steps.Stage
    | steps.Probe
    | steps.Switch
    | steps.Revert
    | steps.Stop
)
_PHASES: Final[dict[type, Phase]] = {
    steps.Fetch: "fetching",
    steps.Verify: "verifying",
    steps.Stage: "staging",
    steps.Probe: "probing",
    steps.Switch: "switching",
    steps.Revert: "reverting",
    steps.Stop: "switching",
}


class Permits(Protocol):
    """Who says which packages may run: `DeviceTrust`."""

    def manifest_length(self, package: str) -> int:
        """How long the manifest of a permitted package is; raises VerificationError."""
        ...


class Effects:
    """Carries out effects, in the time that is given to it.

    Args:
        fate: What goes wrong.
        permits: Says what may run.
        time: When it is over.
        told: Takes the answers.
        changed: Told when what runs has changed.
    """

    def __init__(
        self,
        fate: Fate,
        permits: Permits,
        time: Time,
        told: Callable[[Event], None],
        changed: Callable[[], None],
    ) -> None:
        self._fate, self._permits, self._time = fate, permits, time
        self._told, self._changed = told, changed
        self._running: dict[str, Module] = {}
        self._ports: dict[str, int] = {}
        self._restarts: dict[str, int] = {}
        self._under_way: dict[str, Later] = {}

    def begin(self, effect: Effect) -> None:
        """Begins an effect; its answer comes later."""
        match effect:
            case steps.Start():
                self._run(effect.module, effect.run)
            case steps.Cancel():
                self._cancel(effect.module)
            case steps.Clean():
                pass
            case steps.Measure():
                self._later(effect.module, 0.0, lambda: self._told(self._measured(effect)))
            case _:
                self._later(effect.module, self._fate.step_s(), lambda: self._end(effect))

    def close(self) -> None:
        """The power is cut: nothing goes on, and nothing runs."""
        for later in self._under_way.values():
            later.cancel()
        self._under_way.clear()
        self._running.clear()

    def live(self) -> dict[str, Live]:
        """What runs, as a report tells it."""
        return {
            name: Live(True, self._port(name, run), self._restarts.get(name, 0))
            for name, run in self._running.items()
        }

    def restart(self, module: str) -> bool:
        """Starts a module anew; whether there is one of that name."""
        if module not in self._running:
            return False
        self._restarts[module] = self._restarts.get(module, 0) + 1
        self._changed()
        return True

    def _later(self, module: str, seconds: float, act: Callable[[], object]) -> None:
        self._cancel(module)
        self._under_way[module] = self._time.after(seconds, act)

    def _cancel(self, module: str) -> None:
        later = self._under_way.pop(module, None)
        if later is not None:
            later.cancel()

    def _end(self, effect: Long) -> None:
        self._under_way.pop(effect.module, None)
        phase = _PHASES[type(effect)]
        try:
            failure = self._act(effect)
        except FieldpostError as error:
            failure = failure_of(error, phase)
        if failure is None:
            self._told(steps.Done(effect.module, effect.attempt, phase))
            return
        retryable = phase == "fetching"
        self._told(steps.Failed(effect.module, effect.attempt, phase, failure, retryable))

    def _act(self, effect: Long) -> Failure | None:
        match effect:
            case steps.Verify():
                self._permits.manifest_length(effect.wanted.package)
            case steps.Switch():
                self._run(effect.module, effect.wanted)
            case steps.Revert():
                self._run(effect.module, effect.run)
            case steps.Stop():
                self._run(effect.module, None)
            case steps.Fetch():
                return self._failure(effect.wanted, "fetching")
            case steps.Stage():
                return self._failure(effect.wanted, "staging")
            case steps.Probe():
                return self._failure(effect.wanted, "probing")
        return None

    def _failure(self, wanted: Module, phase: FailingPhase) -> Failure | None:
        if self._fate.fails(wanted.package) != phase:
            return None
        return Failure(code="deployment_failed", message=_TEXTS[phase], phase=phase)

    def _measured(self, effect: steps.Measure) -> Event:
        self._under_way.pop(effect.module, None)
        run = self._running.get(effect.module)
        bad = run is not None and self._fate.fails(run.package) == "soaking"
        return steps.Measured(
            effect.module,
            effect.attempt,
            healthy=run is not None and not (bad and run.soak.most_errors >= 0.5),  # noqa: PLR2004
            requests=100,
            failed=50 if bad else 0,
            latency_s=self._fate.step_s() / 10,
        )

    def _run(self, module: str, run: Module | None) -> None:
        if run is None:
            self._running.pop(module, None)
        else:
            self._running[module] = run
        self._restarts.pop(module, None)
        self._changed()

    def _port(self, name: str, run: Module) -> int:
        return run.port or self._ports.setdefault(name, _FIRST_PORT + len(self._ports))

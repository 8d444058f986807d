"""Carries out what the state machine asks for: each module's effects one after another.

Each module has a thread of its own, so that a module that waits for a network holds nobody up; what
runs is kept running by the supervisor, which waits for none of these.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from typing import Final, Protocol

from edge.agent import health, steps
from edge.agent.packages import Packages
from edge.agent.states import DeviceState
from edge.agent.steps import Effect, Event
from edge.agent.supervisor import Supervisor, failure_of
from edge.agent.throttle import Stop, StoppedError, Throttle
from edge.agent.transfer import Wishes
from edge.agent.web import Web
from edge.protocol.messages import Failure, Module, Phase, Source
from scoring.errors import (
    DeadlineExceededError,
    DigestMismatchError,
    FieldpostError,
    InUseError,
    NotFoundError,
    RegistryError,
    StorageFullError,
    VerificationError,
    WorkspaceError,
)

logger = logging.getLogger(__name__)

_MAY_PASS: Final = (
    DeadlineExceededError,
    DigestMismatchError,
    InUseError,
    NotFoundError,
    RegistryError,
    StorageFullError,
    WorkspaceError,
)
_MEASURE_S: Final = 45.0

Phased = (
    steps.Fetch
    | steps.Verify
    | steps.Stage
    | steps.Probe
    | steps.Switch
    | steps.Measure
    | steps.Revert
    | steps.Stop
)

_PHASES: Final[dict[type, Phase]] = {
    steps.Fetch: "fetching",
    steps.Verify: "verifying",
    steps.Stage: "staging",
    steps.Probe: "probing",
    steps.Switch: "switching",
    steps.Measure: "soaking",
    steps.Revert: "reverting",
    steps.Stop: "switching",
}


class Permits(Protocol):
    """Who says which packages may run."""

    def manifest_length(self, package: str) -> int:
        """How long the manifest of a permitted package is, as signed.

        Raises:
            VerificationError: The package is not permitted.
        """
        ...


class Effects:
    """Carries out effects.

    Args:
        supervisor: Runs modules.
        packages: What is here.
        permits: Says what may run.
        web: Asks sources.
        told: Takes the answers, from any thread.
        state: The state of the device as it was saved last.
    """

    def __init__(
        self,
        supervisor: Supervisor,
        packages: Packages,
        permits: Permits,
        web: Web,
        told: Callable[[Event], None],
        state: Callable[[], DeviceState],
    ) -> None:
        self._supervisor, self._packages = supervisor, packages
        self._permits, self._web = permits, web
        self._told, self._state = told, state
        self._throttle = Throttle()
        self._lanes: dict[str, _Lane] = {}
        self._cleaner = _Lane("clean", self._clean_quietly)
        self._mender = _Lane("mend", self._mend_quietly)

    def begin(self, effect: Effect) -> None:
        """Begins an effect; returns at once."""
        match effect:
            case steps.Start():
                self._supervisor.start(effect.module, effect.run)
            case steps.Cancel():
                self._lane(effect.module).cancel(effect.attempt)
                # The end of a candidate that is ready already: nothing of a lane waits for it.
                self._lane(effect.module).put(effect, effect.attempt)
            case steps.Clean():
                self._cleaner.put(effect, 0)
            case _:
                self._lane(effect.module).put(effect, effect.attempt)

    def mend(self, module: str, run: Module) -> None:
        """Fetches again what is damaged of a package that is to run: the supervisor goes on."""
        self._mender.put(steps.Start(module, run), 0)

    def close(self) -> None:
        """Breaks off whatever is going on, and waits for its end."""
        lanes = [*self._lanes.values(), self._cleaner, self._mender]
        for lane in lanes:
            lane.close()
        for lane in lanes:
            lane.join()

    def _lane(self, module: str) -> _Lane:
        if module not in self._lanes:
            self._lanes[module] = _Lane(module, self._carry_out)
        return self._lanes[module]

    # -- on a lane's thread

    def _carry_out(self, effect: Effect, stop: Stop) -> None:
        if isinstance(effect, steps.Cancel):
            self._supervisor.end_candidate(effect.module, effect.attempt)
            return
        assert isinstance(effect, Phased)
        try:
            answer = self._answer(effect, stop)
        except StoppedError:
            return
        except FieldpostError as error:
            if isinstance(error, StorageFullError):
                self._make_room()
            may_pass = isinstance(error, _MAY_PASS) and not isinstance(error, VerificationError)
            answer = self._failed(effect, failure_of(error), retryable=may_pass)
        except Exception as error:  # whatever it is: the device goes back, and says so
            logger.exception("%s of %s failed", _PHASES[type(effect)], effect.module)
            failure = Failure(code="internal", message=f"{type(error).__name__}: {error}"[:2000])
            answer = self._failed(effect, failure, retryable=True)
        if not stop.is_set:
            self._told(answer)

    def _failed(self, effect: Phased, failure: Failure, *, retryable: bool) -> Event:
        phase = _PHASES[type(effect)]
        failure = Failure(
            code=failure.code, message=failure.message, phase=phase, detail=failure.detail
        )
        return steps.Failed(effect.module, effect.attempt, phase, failure, retryable)

    def _answer(self, effect: Phased, stop: Stop) -> Event:
        name, attempt = effect.module, effect.attempt
        match effect:
            case steps.Fetch():
                self._throttle.rate = effect.rate
                self._fetch(effect.wanted, effect.sources, stop)
            case steps.Verify():
                self._verify(effect.wanted)
            case steps.Stage():
                self._packages.root(effect.wanted)
            case steps.Probe():
                root = self._packages.root(effect.wanted)
                self._supervisor.probe(name, effect.wanted, attempt, root, stop)
            case steps.Switch():
                self._supervisor.switch(name, effect.wanted, attempt)
            case steps.Measure():
                return self._measure(effect, stop)
            case steps.Revert():
                self._revert(effect, stop)
            case steps.Stop():
                self._supervisor.stop(name)
        return steps.Done(name, attempt, _PHASES[type(effect)])

    def _fetch(self, wanted: Module, sources: tuple[Source, ...], stop: Stop) -> None:
        wishes = Wishes(sources=sources, web=self._web, throttle=self._throttle, stop=stop)
        found = self._packages.fetch(wanted, wishes, self._state().packages())
        logger.info("fetched %s: %d bytes", wanted.package, found.received)

    def _verify(self, wanted: Module) -> None:
        signed = self._permits.manifest_length(wanted.package)
        found = self._packages.manifest_bytes(wanted.package)
        if found != signed:
            raise VerificationError(
                f"The manifest of {wanted.package} has {found} bytes, and {signed} are signed."
            )

    def _measure(self, effect: steps.Measure, stop: Stop) -> Event:
        running = self._supervisor.wait_current(effect.module, _MEASURE_S, stop)
        if running is None or not health.is_ready(running.port):
            return steps.Measured(effect.module, effect.attempt, healthy=False)
        seen = self._supervisor.shown(effect.module, running)
        return steps.Measured(
            effect.module,
            effect.attempt,
            healthy=True,
            requests=seen.requests,
            failed=seen.failed,
            latency_s=seen.latency_s,
        )

    def _revert(self, effect: steps.Revert, stop: Stop) -> None:
        root = None
        if effect.run is not None:
            try:
                root = self._packages.root(effect.run)
            except (NotFoundError, DigestMismatchError) as error:
                logger.warning("what is to answer again is damaged: %s", error)
                desired = self._state().desired
                self._fetch(effect.run, desired.sources if desired else (), stop)
                root = self._packages.root(effect.run)
        self._supervisor.revert(effect.module, effect.run, root, stop)

    def _mend_quietly(self, effect: Effect, stop: Stop) -> None:
        assert isinstance(effect, steps.Start)
        desired = self._state().desired
        try:
            self._packages.remove_damaged(effect.run.package)
            self._fetch(effect.run, desired.sources if desired else (), stop)
            self._packages.root(effect.run)
        except (FieldpostError, OSError) as error:
            logger.warning("%s cannot be mended now: %s", effect.run.package, error)
        except StoppedError:
            return

    def _make_room(self) -> None:
        """What ran before goes, where it takes the room that something else needs."""
        try:
            self._packages.clean(self._state().packages(), ())
        except (FieldpostError, OSError) as error:
            logger.warning("no room could be made: %s", error)

    def _clean_quietly(self, effect: Effect, _: Stop) -> None:
        assert isinstance(effect, steps.Clean)
        try:
            # What has been wished for since stays, too.
            self._packages.clean(effect.keep | self._state().packages(), effect.spare)
        except (FieldpostError, OSError) as error:
            logger.warning("nothing could be cleaned up: %s", error)


class _Lane:
    """A thread that carries out effects, one after another."""

    def __init__(self, name: str, carry_out: Callable[[Effect, Stop], None]) -> None:
        self._carry_out = carry_out
        self._queue: queue.SimpleQueue[tuple[Effect, int] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._cancelled = -1
        self._now: tuple[int, Stop] | None = None
        self._closed = False
        self._thread = threading.Thread(target=self._run, name=f"lane-{name}", daemon=True)
        self._thread.start()

    def put(self, effect: Effect, attempt: int) -> None:
        """Has an effect carried out after those before it."""
        self._queue.put((effect, attempt))

    def cancel(self, attempt: int) -> None:
        """Breaks off whatever attempts up to this one are doing."""
        with self._lock:
            self._cancelled = max(self._cancelled, attempt)
            if self._now is not None and self._now[0] <= attempt:
                self._now[1].set()

    def close(self) -> None:
        """Breaks everything off."""
        with self._lock:
            self._closed = True
            if self._now is not None:
                self._now[1].set()
        self._queue.put(None)

    def join(self) -> None:
        """Waits for the end."""
        self._thread.join()

    def _run(self) -> None:
        while True:
            found = self._queue.get()
            if found is None or self._closed:
                return
            effect, attempt = found
            stop = Stop()
            with self._lock:
                stale = attempt <= self._cancelled and isinstance(effect, Phased)
                self._now = (attempt, stop)
            if not stale:
                self._carry_out(effect, stop)
            with self._lock:
                self._now = None

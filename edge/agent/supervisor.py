"""Keeps modules running: it waits for no network, and for no disk but the packages' own.

Each module has a slot: its socket, what answers there, and perhaps a candidate. What ends by itself
is started again, after pauses that grow while it keeps ending.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from edge.agent import health, samples
from edge.agent.ports import Ports
from edge.agent.runner import Runner, Running
from edge.agent.states import Live
from edge.agent.throttle import Stop
from edge.protocol.messages import Failure, Module
from edge.telemetry.metrics import Traffic
from scoring.errors import DeploymentFailedError, FieldpostError

logger = logging.getLogger(__name__)

DRAIN_S: Final = 30.0
_FIRST_PAUSE_S: Final = 0.25
_LONGEST_PAUSE_S: Final = 60.0
_STEADY_S: Final = 60.0
_PROBE_EVERY_S: Final = 10.0
_MOST_SILENT: Final = 6
_STARTING_S: Final = 600.0
_READY_S: Final = 10.0

Crashed = Callable[[str, str, Failure], None]
Prepare = Callable[[Module], Path]
Leaving = Callable[[str, Running], object]
"""Told of what answered for a module, and is about to be drained: it still answers."""


class Slot:
    """One module. Its lock guards what may change under two threads."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.lock = threading.RLock()
        self.wanted: Module | None = None
        self.current: Running | None = None
        self.candidate: Running | None = None
        self.candidate_attempt = -1
        self.candidate_counted = Traffic()
        self.counted = Traffic()  # before what answers was asked by others
        self.socket: socket.socket | None = None
        self.port = 0  # as it was wished for: 0 is another than the one it led to
        self.restarts = 0
        self.ended = 0  # in a row
        self.began_at = 0.0
        self.start_at: float | None = None
        self.silent = 0


class Supervisor:
    """Keeps modules running.

    Args:
        runner: Starts packages.
        ports: Opens their sockets.
        prepare: The root of a package, from what is on the disk; raises an error of the tree.
        crashed: Told of a module, its package and why, when what answered ended by itself.
        changed: Told when what `live` says may be another.
        drain_s: How long what is replaced may take for what it has begun.
        leaving: See `Leaving`.
        steady: Seconds of a clock that is never set.
    """

    def __init__(
        self,
        runner: Runner,
        ports: Ports,
        prepare: Prepare,
        crashed: Crashed,
        changed: Callable[[], None] = lambda: None,
        *,
        drain_s: float = DRAIN_S,
        leaving: Leaving = lambda _name, _running: None,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self._runner, self._ports, self._prepare = runner, ports, prepare
        self._leaving = leaving
        self._crashed, self._changed = crashed, changed
        self._drain_s, self._steady = drain_s, steady
        self._slots: dict[str, Slot] = {}
        self._wake = threading.Condition()
        self._closed = False
        self._threads = [
            threading.Thread(target=self._keep, name="supervisor", daemon=True),
            threading.Thread(target=self._probe_all, name="health", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Drains all modules, and ends."""
        with self._wake:
            self._closed = True
            self._wake.notify_all()
        stopping = [threading.Thread(target=self.stop, args=(name,)) for name in list(self._slots)]
        for thread in stopping:
            thread.start()
        for thread in (*stopping, *self._threads):
            thread.join()

    # -- what the agent asks for

    def start(self, name: str, run: Module) -> None:
        """Has a module answer with this, and keeps it so; returns at once."""
        slot = self._slot(name)
        with slot.lock:
            slot.wanted = run
            slot.start_at = self._steady()
        self._notify()

    def probe(self, name: str, run: Module, attempt: int, root: Path, stop: Stop) -> None:
        """Starts a candidate, and sees whether it answers.

        Raises:
            DeploymentFailedError: It does not.
            DeadlineExceededError: It is not ready in time.
            InUseError: Its port is taken.
            StoppedError: It is not wanted any more; it has ended.
        """
        slot = self._slot(name)
        self.end_candidate(name)
        listener = self._listener(slot, run)
        candidate = self._runner.start(name, run, root, listener, lambda _: None, self._on_ended)
        with slot.lock:
            slot.candidate, slot.candidate_attempt = candidate, attempt
        try:
            candidate.wait_ready(run.timeout_s, stop)
            _require_answer(candidate)
            samples.require_answer(candidate.port, run, root)
            # What the probe has asked says nothing of how the version does later.
            slot.candidate_counted = health.counted(candidate.port)
        except BaseException:
            self.end_candidate(name)
            raise

    def switch(self, name: str, run: Module, attempt: int) -> None:
        """Lets the candidate answer, and drains what it replaces.

        Raises:
            DeploymentFailedError: There is no candidate any more.
        """
        slot = self._slot(name)
        with slot.lock:
            candidate = slot.candidate
            if candidate is None or not candidate.is_ready or slot.candidate_attempt != attempt:
                raise DeploymentFailedError("The candidate has ended before the switch.")
            old, slot.candidate = slot.current, None
            self._adopt(slot, run, candidate)
            slot.counted = slot.candidate_counted
        self._let_accept(candidate)
        if old is not None:
            self._drain(name, old)

    def revert(self, name: str, run: Module | None, root: Path | None, stop: Stop) -> None:
        """Lets this answer again, and ends everything else of the module.

        Raises:
            DeploymentFailedError, DeadlineExceededError, InUseError: It does not answer.
            StoppedError: Something else is wanted meanwhile.
        """
        self.end_candidate(name)
        if run is None or root is None:
            self.stop(name)
            return
        slot = self._slot(name)
        with slot.lock:
            current = slot.current
            if current is not None and current.run == run and current.is_ready:
                slot.wanted = run
                return
        listener = self._listener(slot, run)
        again = self._runner.start(name, run, root, listener, lambda _: None, self._on_ended)
        try:
            again.wait_ready(run.timeout_s, stop)
        except BaseException:
            again.kill()
            raise
        with slot.lock:
            bad = slot.current
            self._adopt(slot, run, again)
        self._let_accept(again)
        if bad is not None:
            self._drain(name, bad)

    def stop(self, name: str) -> None:
        """Drains and ends a module, and gives its port back."""
        self.end_candidate(name)
        slot = self._slot(name)
        with slot.lock:
            current, slot.current, slot.wanted, slot.start_at = slot.current, None, None, None
        if current is not None:
            self._drain(name, current)
        _give_back(slot)
        self._changed()

    def _drain(self, name: str, running: Running) -> None:
        if running.is_ready and running.alive:
            self._leaving(name, running)
        running.drain(self._drain_s)

    def end_candidate(self, name: str, attempt: int | None = None) -> None:
        """Ends the candidate of a module, if it is of this attempt or an earlier one."""
        slot = self._slot(name)
        with slot.lock:
            candidate = slot.candidate
            if candidate is None or (attempt is not None and slot.candidate_attempt > attempt):
                return
            slot.candidate = None
        candidate.kill()

    def restart(self, name: str) -> bool:
        """Starts a module anew; whether there is one of that name."""
        slot = self._slots.get(name)
        if slot is None or slot.wanted is None:
            return False
        with slot.lock:
            current, slot.current = slot.current, None
            slot.start_at = self._steady()
            slot.restarts += 1
        self._notify()
        if current is not None:
            self._drain(name, current)
        return True

    def running(self, name: str) -> Running | None:
        """What answers for a module, or is about to."""
        slot = self._slots.get(name)
        return slot.current if slot else None

    def wait_current(self, name: str, seconds: float, stop: Stop) -> Running | None:
        """What answers for a module, waited for where it is just starting; None for nothing."""
        until = self._steady() + seconds
        current = self.running(name)
        while current is None and self._steady() < until:
            slot = self._slots.get(name)
            if slot is None or slot.wanted is None:
                return None
            stop.wait(0.05)
            current = self.running(name)
        if current is not None:
            with contextlib.suppress(FieldpostError):
                current.wait_ready(max(0.0, until - self._steady()), stop)
        return current

    def shown(self, name: str, running: Running) -> health.Shown:
        """How a module has answered those who asked it since the switch."""
        counted = health.counted(running.port)
        slot = self._slot(name)
        mine = slot.current is running
        return health.shown(counted.since(slot.counted) if mine else counted)

    def live(self) -> dict[str, Live]:
        """What a report tells of the modules."""
        return {name: _live(slot) for name, slot in list(self._slots.items())}

    # -- keeping

    def _adopt(self, slot: Slot, run: Module, running: Running) -> None:
        slot.wanted, slot.current, slot.start_at = run, running, None
        slot.counted = Traffic()
        slot.restarts = slot.ended = slot.silent = 0
        slot.began_at = self._steady()

    def _let_accept(self, running: Running) -> None:
        running.accept()
        if not running.alive:  # it ended before anyone would have noticed
            self._on_ended(running, Failure(code="deployment_failed", message="It has ended."))
        self._changed()

    def _slot(self, name: str) -> Slot:
        with self._wake:
            return self._slots.setdefault(name, Slot(name))

    def _notify(self) -> None:
        with self._wake:
            self._wake.notify_all()

    def _listener(self, slot: Slot, run: Module) -> socket.socket:
        with slot.lock:
            if slot.socket is not None and slot.port == run.port:
                return slot.socket
            new = self._ports.open(slot.name, run.port)
            old, slot.socket, slot.port = slot.socket, new, run.port
        if old is not None:
            old.close()  # what answers there has it, too, for as long as it runs
        return new

    def _keep(self) -> None:
        while True:
            with self._wake:
                if self._closed:
                    return
                now = self._steady()
                due = [s for s in self._slots.values() if s.start_at is not None]
                later = min((s.start_at - now for s in due if s.start_at), default=None)
                if later is None or later > 0:
                    self._wake.wait(later)
                    continue
            for slot in due:
                self._start_due(slot)

    def _start_due(self, slot: Slot) -> None:
        with slot.lock:
            run = slot.wanted
            if run is None or slot.start_at is None or slot.start_at > self._steady():
                return
            slot.start_at = None
        try:
            root = self._prepare(run)
            listener = self._listener(slot, run)
            with slot.lock:
                if slot.wanted != run or slot.current is not None:
                    return
                slot.current = self._runner.start(
                    slot.name, run, root, listener, self._on_ready, self._on_ended
                )
                slot.began_at = self._steady()
                slot.counted = Traffic()
                slot.silent = 0
        except FieldpostError as error:
            logger.warning("module %s cannot be started: %s", slot.name, error)
            self._again(slot, run, failure_of(error))

    def _on_ready(self, running: Running) -> None:
        running.accept()
        self._changed()

    def _on_ended(self, running: Running, failure: Failure) -> None:
        for slot in list(self._slots.values()):
            with slot.lock:
                if slot.current is not running:
                    continue
                slot.current = None
            logger.warning("module %s has ended: %s", slot.name, failure.message)
            self._again(slot, running.run, failure)

    def _again(self, slot: Slot, run: Module, failure: Failure) -> None:
        """Starts it again after a while."""
        with slot.lock:
            if self._steady() - slot.began_at > _STEADY_S:
                slot.ended = 0
            slot.restarts += 1
            pause = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2.0 ** min(slot.ended, 20))
            slot.ended += 1
            if slot.wanted == run:
                slot.start_at = self._steady() + pause
        self._notify()
        self._crashed(slot.name, run.package, failure)
        self._changed()

    # -- what runs and does not answer

    def _probe_all(self) -> None:
        while True:
            with self._wake:
                if self._closed or self._wake.wait_for(lambda: self._closed, _PROBE_EVERY_S):
                    return
            for slot in list(self._slots.values()):
                self._probe_one(slot)

    def _probe_one(self, slot: Slot) -> None:
        current = slot.current
        if current is None or not current.alive:
            return
        if not current.is_ready:
            hung = self._steady() - slot.began_at > _STARTING_S
        else:
            slot.silent = 0 if health.is_ready(current.port) else slot.silent + 1
            hung = slot.silent >= _MOST_SILENT
        if hung and slot.current is current:
            logger.warning("module %s does not answer: it is started again", slot.name)
            current.kill()


def _give_back(slot: Slot) -> None:
    """Closes the socket of a module, if nothing is wanted there meanwhile."""
    with slot.lock:
        if slot.wanted is None and slot.socket is not None:
            slot.socket.close()
            slot.socket = None


def _require_answer(candidate: Running) -> None:
    if not health.is_ready(candidate.port, _READY_S):
        raise DeploymentFailedError("It says that it is ready, and answers no probe.")


def failure_of(error: FieldpostError, phase: str = "") -> Failure:
    """An error as reports tell it."""
    message = f"{error.message} {error.hint}".strip()
    return Failure(
        code=error.code, message=message[:4000], phase=phase, detail=error.detail[-8192:]
    )


def _live(slot: Slot) -> Live:
    with slot.lock:
        current = slot.current
        port = 0
        if slot.socket is not None:
            with contextlib.suppress(OSError):
                port = int(slot.socket.getsockname()[1])
        healthy = current is not None and current.is_ready and not slot.silent
        return Live(healthy=healthy, port=port, restarts=slot.restarts)

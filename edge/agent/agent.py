"""The agent: its journal, its state machine, what carries out, and what it says and hears.

One thread takes events, saves the state, and begins the effects; it waits for nothing else. What
the controller says is checked on a thread of its own, since that may have to ask for metadata.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, NamedTuple, Protocol

import msgspec

from edge.agent import facts, states, steps
from edge.agent.clock import Clock
from edge.agent.commands import Commands, encode
from edge.agent.config import Told
from edge.agent.effects import Effects, Permits
from edge.agent.journal import Journal
from edge.agent.link import Came
from edge.agent.logs import ModuleLog
from edge.agent.machine import Machine
from edge.agent.packages import Packages
from edge.agent.ports import Ports
from edge.agent.processes import ProcessRunner
from edge.agent.runner import Running
from edge.agent.space import Ballast
from edge.agent.states import DeviceState
from edge.agent.steps import Effect, Event
from edge.agent.supervisor import Supervisor, failure_of
from edge.agent.telling import Telling
from edge.agent.web import Web
from edge.protocol import envelope, messages
from edge.protocol.messages import Command, Desired, Failure, ModuleState, Reported
from edge.protocol.topics import Kind
from edge.telemetry.collect import Served
from scoring.errors import ExpiredError, FieldpostError, UnreachableError, WorkspaceError

logger = logging.getLogger(__name__)

_TICK_S: Final = 0.5
_IDLE_S: Final = 15.0
_REPORT_EVERY_S: Final = 0.5
_FACTS_EVERY_S: Final = 600.0
_AGAIN_S: Final = 60.0
_WISH: Final = "desired.envelope"

Fetch = Callable[[str, int], bytes | None]


class Trust(Permits, Protocol):
    """Whom the device believes: `DeviceTrust`."""

    @property
    def floor(self) -> float:
        """It is not earlier than this."""
        ...

    def verify(
        self, data: bytes, now: float, fetch: Fetch | None, runs: Mapping[str, str]
    ) -> Desired:
        """A wish that the device may take on, beside the packages that its modules run."""
        ...

    def recheck(self, data: bytes) -> Desired:
        """A wish that was taken on before; whoever made it is as good as then."""
        ...

    def verify_command(self, data: bytes, now: float, fetch: Fetch | None = None) -> Command:
        """A command that may be begun now."""
        ...

    def found_good(self, package: str) -> None:
        """Remembers that no lower release comes after this one."""
        ...


class Says(Protocol):
    """Where the agent says things: the link."""

    def retain(self, kind: Kind, payload: bytes) -> None:
        """Says what is to be known from now on."""
        ...

    def send(self, kind: Kind, payload: bytes, sent: Callable[[bool], object]) -> bool:
        """Sends a message."""
        ...


class Who(NamedTuple):
    """Which device this is, and how it is set up.

    Attributes:
        site: Where it is.
        device: Its name.
        host: The address that modules answer at.
        drain_s: How long what is replaced may take for what it has begun.
        shell: Whether the command `shell` is allowed.
    """

    site: str
    device: str
    host: str = "127.0.0.1"
    drain_s: float = 30.0
    shell: bool = False


class Agent:
    """One device.

    Args:
        state: Its folder.
        who: Which one it is.
        trust: Whom it believes.
        web: Asks sources.
        told: What the device tells.
        metadata: Gets signed metadata; None where there is no controller to ask.
    """

    def __init__(
        self,
        state: Path,
        who: Who,
        trust: Trust,
        web: Web,
        told: Told,
        metadata: Fetch | None = None,
    ) -> None:
        self._state, self._who, self._trust, self._metadata = state, who, trust, metadata
        self._ballast = Ballast(state / "ballast")
        self.journal = Journal(state, make_room=self._ballast.drop)
        self.clock = Clock(self.journal)
        self._machine = Machine(self.journal.state)
        self._events: queue.Queue[Event | None] = queue.Queue()
        self._heard: queue.Queue[Came | None] = queue.Queue()
        self._says: Says | None = None
        self._unsaved: list[Effect] = []
        self._refused: Failure | None = None
        self._pending: bytes | None = None
        self._again_at = float("inf")
        self._seq = 0
        self._news, self._reported_at, self._facts_at = True, 0.0, float("-inf")
        self._last: Reported | None = None
        self._modules: Mapping[str, ModuleState] = {}
        self._facts: dict[str, facts.Fact] = {}
        self._runner = ProcessRunner(state / "logs")
        packages = Packages(state)
        self.supervisor = Supervisor(
            self._runner,
            Ports(who.host, self.journal),
            packages.root,
            self._crashed,
            self._changed,
            drain_s=who.drain_s,
            leaving=self._leaving,
        )
        self.telling = Telling(state, who.device, told, self._serving, clock=self.clock.now)
        self._effects = Effects(
            self.supervisor, packages, trust, web, self._events.put, lambda: self.journal.state
        )
        self._commands = Commands(
            self, self.journal, who.device, shell=who.shell, clock=self.clock.now
        )
        self._listener = threading.Thread(target=self._listen, name="listener", daemon=True)
        self._thread = threading.Thread(target=self._run, name="agent", daemon=True)

    @property
    def state(self) -> DeviceState:
        """As the journal has it."""
        return self.journal.state

    def begin(self) -> None:
        """Starts what ran before, from what is on the disk alone; returns at once."""
        self._recheck()
        self._saw_time()
        self._events.put(steps.Boot())
        self._thread.start()
        self._listener.start()

    def _recheck(self) -> None:
        """Says where the wish on the disk is not what was taken on; what runs goes on."""
        kept = self.journal.note(_WISH)
        if kept is None:
            return
        try:
            self._trust.recheck(kept.encode())
        except FieldpostError as error:
            logger.warning("the desired state on the disk is not the one taken on: %s", error)
            self._refused = failure_of(error)
            data = {"what": "desired", "code": error.code, "message": error.message}
            self.telling.tell("alarm", "trust", data)

    def speak(self, says: Says) -> None:
        """Gives it a link, over which it says how it is, and tells what it sees, from now on."""
        self._says = says
        self.telling.begin(says)
        self._changed()

    def close(self) -> None:
        """Ends everything, modules drained. They run again at the next begin."""
        self.telling.close()
        self._heard.put(None)
        self._listener.join()
        self._events.put(None)
        self._thread.join()
        self._effects.close()
        self.supervisor.close()
        self._runner.close()
        self.journal.close()

    def came(self, message: Came) -> None:
        """Takes what the link has heard."""
        if message.kind == "ack":  # nothing is checked: no metadata has to be waited for
            self.telling.came(message.payload)
            message.done()
        else:
            self.telling.heard()
            self._heard.put(message)

    # -- what commands act on

    def modules(self) -> list[str]:
        """The names of what it runs, or is to run."""
        return sorted(self.journal.state.tracks)

    def restart(self, module: str) -> bool:
        """Starts a module anew; whether there is one of that name."""
        return self.supervisor.restart(module)

    def log(self, module: str) -> ModuleLog:
        """What a module prints."""
        return self._runner.log(module)

    def report(self) -> None:
        """Has a report sent now, with fresh facts."""
        self._facts_at = float("-inf")
        self._last = None
        self._changed()

    # -- events

    def _crashed(self, module: str, package: str, failure: Failure) -> None:
        self._events.put(steps.Crashed(module, package, failure))
        track = self.journal.state.tracks.get(module)
        if failure.code in {"not_found", "digest_mismatch"} and track and track.active:
            self._effects.mend(module, track.active)

    def _serving(self) -> dict[str, Served]:
        found = {name: self.supervisor.running(name) for name in list(self.journal.state.tracks)}
        return {
            name: Served(one.port, one.run.package)
            for name, one in found.items()
            if one is not None and one.is_ready
        }

    def _leaving(self, module: str, running: Running) -> None:
        self.telling.leaving(module, running.port, running.run.package)

    def _changed(self) -> None:
        if not self._news:
            self._news = True
            self._events.put(steps.Tick())

    def _run(self) -> None:
        while True:
            try:
                event = self._events.get(timeout=self._wait_s())
            except queue.Empty:
                event = steps.Tick()
            if event is None:
                return
            try:
                self._take(event)
                self._upkeep()
            except Exception:  # whatever it is: the device has to go on
                logger.exception("an event could not be dealt with: %r", type(event))

    def _wait_s(self) -> float:
        if self._unsaved or self._machine.busy or self._news:
            return _TICK_S
        return min(_IDLE_S, max(_TICK_S, self._again_at - time.monotonic()))

    def _take(self, event: Event) -> None:
        before = self._machine.state
        effects = self._machine.take(event, self.clock.moment())
        if isinstance(event, steps.Boot):  # what ran runs again, whatever the disk says
            for effect in effects:
                if isinstance(effect, steps.Start):
                    self._effects.begin(effect)
            effects = [effect for effect in effects if not isinstance(effect, steps.Start)]
        self._unsaved += effects
        if self._machine.state is not before:
            self._news = True
        self._save_and_begin()
        self._note_good(before)

    def _save_and_begin(self) -> None:
        """Saves the state, and only then begins what it leads to; tried again at every tick."""
        try:
            self.journal.save(self._machine.state)
        except WorkspaceError as error:
            logger.error("the journal cannot be written: %s", error)  # noqa: TRY400 - no defect
            return
        effects, self._unsaved = self._unsaved, []
        for effect in effects:
            self._effects.begin(effect)

    def _note_good(self, before: DeviceState) -> None:
        for name, track in self._machine.state.tracks.items():
            old = before.tracks.get(name)
            if track.good is None or (old is not None and old.good == track.good):
                continue
            try:
                self._trust.found_good(track.good.package)
            except FieldpostError as error:
                logger.warning("the release of %s cannot be remembered: %s", name, error)

    def _upkeep(self) -> None:
        self._ballast.take()  # again, where there is room again
        now = time.monotonic()
        if now >= self._again_at:
            self._again_at = float("inf")
            pending = self._pending
            if pending is not None:
                self._heard.put(Came("desired", pending, lambda: None))
        if self._news and now - self._reported_at >= _REPORT_EVERY_S:
            self._say(now)

    # -- reports

    def _say(self, now: float) -> None:
        says = self._says
        if says is None:
            return
        self._news, self._reported_at = False, now
        if now - self._facts_at >= _FACTS_EVERY_S:
            self._facts_at, self._facts = now, facts.facts(self._state)
        report = self.reported()
        if self._last is not None and _same(report, self._last):
            return
        self._last = report
        self.telling.moved(self._modules, report.modules)
        self._modules = report.modules
        self._seq += 1
        says.retain("reported", _encode(msgspec.structs.replace(report, seq=self._seq)))

    def reported(self) -> Reported:
        """What the device is and does now."""
        state = self._machine.state
        return Reported(
            device=self._who.device,
            boot=self.journal.boot,
            seq=self._seq,
            generation=state.generation,
            at=self.clock.now(),
            modules=states.reported(state, self.supervisor.live()),
            facts=self._facts,
            refused=self._refused or state.refused,
        )

    # -- what the controller says, on a thread of its own

    def _listen(self) -> None:
        while True:
            message = self._heard.get()
            if message is None:
                return
            try:
                self._hear(message)
            except Exception:  # whatever a stranger sends: the next message is read
                logger.exception("a message could not be dealt with")
            message.done()

    def _hear(self, message: Came) -> None:
        match message.kind:
            case "desired":
                self._hear_desired(message.payload)
            case "cmd/req":
                self._hear_command(message.payload)

    def _hear_desired(self, data: bytes) -> None:
        if not data:  # a retained message that was removed
            return
        try:
            runs = states.proven(self.journal.state)
            desired = self._trust.verify(data, self.clock.now(), self._metadata, runs)
        except FieldpostError as error:
            logger.warning("a desired state is refused: %s", error)
            self._refused = msgspec.structs.replace(
                failure_of(error), generation=_generation_of(data)
            )
            may_pass = isinstance(error, ExpiredError | UnreachableError | WorkspaceError)
            self._pending = data if may_pass else None
            self._again_at = time.monotonic() + _AGAIN_S if may_pass else float("inf")
        else:
            self._refused = self._pending = None
            self._saw_time()
            self._keep_wish(data)
            self._events.put(steps.Wanted(desired))
        self._changed()

    def _keep_wish(self, data: bytes) -> None:
        try:
            if self.journal.note(_WISH) != (text := data.decode()):
                self.journal.set_note(_WISH, text)
        except (WorkspaceError, UnicodeDecodeError) as error:
            logger.warning("the desired state cannot be kept as it was signed: %s", error)

    def _hear_command(self, data: bytes) -> None:
        try:
            command = self._trust.verify_command(data, self.clock.now(), self._metadata)
            results = self._commands.carry_out(command)
        except FieldpostError as error:
            logger.warning("a command is refused: %s", error)
            return
        for result in results:
            self._send_result(encode(result))

    def _send_result(self, data: bytes) -> None:
        """Sends a part of an answer, again after a connection that broke before it was there."""

        def sent(arrived: bool) -> None:
            if not arrived:
                self._send_result(data)

        says = self._says
        if says is not None:
            says.send("cmd/res", data, sent)

    def _saw_time(self) -> None:
        try:
            self.clock.saw_signed(self._trust.floor)
            self.clock.keep()
        except WorkspaceError as error:
            logger.warning("the time cannot be kept: %s", error)


def _generation_of(data: bytes) -> int:
    """Which desired state it would be, by its own word; 0 where that cannot be read."""
    try:
        body = envelope.decode(data).body()
        return messages.decode(body, Desired).generation
    except FieldpostError:
        return 0


def _same(one: Reported, other: Reported) -> bool:
    """Whether two reports say the same, but for when."""
    return msgspec.structs.replace(one, seq=0, at=0.0) == msgspec.structs.replace(
        other, seq=0, at=0.0
    )


def _encode(report: Reported) -> bytes:
    """The report, with less of why something failed where it is too large for a message."""
    try:
        return messages.encode(report)
    except FieldpostError:
        modules = {
            name: msgspec.structs.replace(module, failure=_short(module.failure))
            for name, module in report.modules.items()
        }
        return messages.encode(msgspec.structs.replace(report, modules=modules))


def _short(failure: Failure | None) -> Failure | None:
    if failure is None:
        return None
    return msgspec.structs.replace(failure, detail="", message=failure.message[:200])

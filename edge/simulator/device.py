"""One simulated device: the agent's state machine over made-up effects; no network, no clock."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final, NamedTuple, Protocol

import msgspec

from edge.agent import states, steps
from edge.agent.clock import Clock
from edge.agent.commands import Commands, encode
from edge.agent.logs import ModuleLog
from edge.agent.machine import Machine
from edge.agent.states import DeviceState
from edge.agent.steps import Event
from edge.agent.supervisor import failure_of
from edge.protocol import messages
from edge.protocol.messages import Failure, Reported
from edge.protocol.topics import Kind
from edge.security.trust import DeviceTrust, Fetch
from edge.simulator.effects import Effects
from edge.simulator.faults import Fate, Faults
from edge.simulator.memory import Disk
from edge.simulator.timing import Later, Time
from scoring.errors import (
    ExpiredError,
    FieldpostError,
    NotFoundError,
    UnreachableError,
    WorkspaceError,
)

logger = logging.getLogger(__name__)

TICK_S: Final = 1.0
REPORT_EVERY_S: Final = 0.5
_AGAIN_S: Final = 60.0

Facts = dict[str, str | int | float | bool]


class Says(Protocol):
    """Where a device says things: its wire."""

    def retain(self, kind: Kind, payload: bytes) -> None:
        """Says what is to be known from now on."""
        ...

    def send(self, kind: Kind, payload: bytes) -> bool:
        """Sends a message; whether there was room for it."""
        ...


class Silence:
    """For devices without a network."""

    def retain(self, kind: Kind, payload: bytes) -> None:
        """Nobody hears it."""

    def send(self, kind: Kind, payload: bytes) -> bool:
        """Nobody hears it."""
        del kind, payload
        return False


class Setting(NamedTuple):
    """What devices of one simulation share.

    Attributes:
        time: Clocks and timers.
        root: The root metadata with which devices are enrolled.
        metadata: Gets signed metadata; None where there is nobody to ask.
        faults: What goes wrong.
    """

    time: Time
    root: bytes
    metadata: Fetch | None = None
    faults: Faults = Faults()


class SimulatedDevice:
    """A device.

    Args:
        setting: What it shares with others.
        site: Where it is.
        name: Its name.
        facts: What it tells of itself.
        disk: What it has on its disk; a new one by default.

    Attributes:
        disk: Its disk.
        says: Where it says things.
        fate: What goes wrong.
    """

    def __init__(
        self,
        setting: Setting,
        site: str,
        name: str,
        *,
        facts: Facts | None = None,
        disk: Disk | None = None,
    ) -> None:
        self.site, self.name = site, name
        self.disk = disk or Disk()
        self.says: Says = Silence()
        self.fate = Fate(setting.faults, name)
        self._setting, self._time = setting, setting.time
        self._facts: Facts = {"platform": "linux/amd64", "simulated": True, **(facts or {})}
        self._timers: dict[str, Later] = {}
        self._start()

    def _start(self) -> None:
        """Everything that is in memory."""
        state = self.disk.start()
        self._machine = Machine(state, spread=self.fate.spread)
        self._clock = Clock(self.disk, wall=self._time.wall, steady=self._time.steady)
        self._trust = DeviceTrust(
            self.disk.trust,
            site=self.site,
            device=self.name,
            root=self._setting.root,
            ticks=self._time.steady,
        )
        self._effects = Effects(self.fate, self._trust, self._time, self._take, self._changed)
        self._commands = Commands(self, self.disk, self.name, clock=self._clock.now)
        self._refused: Failure | None = None
        self._last: Reported | None = None
        self._seq = 0
        self._news, self._reported_at = True, float("-inf")

    # -- what is known of it

    @property
    def boot(self) -> int:
        """Its boot counter."""
        return self.disk.boot

    @property
    def state(self) -> DeviceState:
        """As the journal has it."""
        return self._machine.state

    @property
    def settled(self) -> bool:
        """Whether nothing is on its way."""
        return not self._machine.busy

    # -- its life

    def begin(self) -> None:
        """Starts what ran before."""
        self._take(steps.Boot())

    def cut_power(self) -> None:
        """Everything in memory is lost; call `begin` when it has power again."""
        self._effects.close()
        for later in self._timers.values():
            later.cancel()
        self._timers.clear()
        self._start()

    def came(self, kind: Kind, payload: bytes) -> None:
        """Takes what the controller says."""
        if kind == "desired" and payload:
            self._hear_desired(payload)
        elif kind == "cmd/req":
            self._hear_command(payload)

    # -- what commands act on

    def modules(self) -> list[str]:
        """The names of what it runs, or is to run."""
        return sorted(self._machine.state.tracks)

    def restart(self, module: str) -> bool:
        """Starts a module anew; whether there is one of that name."""
        return self._effects.restart(module)

    def log(self, module: str) -> ModuleLog:
        """There is none. Raises NotFoundError."""
        raise NotFoundError(f"The module {module} is simulated, and prints nothing.")

    def report(self) -> None:
        """Has a report sent now."""
        self._last = None
        self._changed()

    # -- events

    def _take(self, event: Event) -> None:
        before = self._machine.state
        effects = self._machine.take(event, self._clock.moment())
        after = self._machine.state
        if after is not before:
            self.disk.save(after)
            self._note_good(before, after)
            self._news = True
        for effect in effects:
            self._effects.begin(effect)
        if self._machine.busy:
            self._once("tick", TICK_S, lambda: self._take(steps.Tick()))
        self._say()

    def _note_good(self, before: DeviceState, after: DeviceState) -> None:
        for name, track in after.tracks.items():
            old = before.tracks.get(name)
            if track.good is not None and (old is None or old.good != track.good):
                try:
                    self._trust.found_good(track.good.package)
                except FieldpostError as error:
                    logger.warning("%s: a release is not remembered: %s", self.name, error)

    def _once(self, name: str, seconds: float, act: Callable[[], object]) -> None:
        """Has something done later, unless it is to be done already."""

        def due() -> None:
            del self._timers[name]
            act()

        if name not in self._timers:
            self._timers[name] = self._time.after(seconds, due)

    # -- reports

    def _changed(self) -> None:
        self._news = True
        self._once("say", 0.0, self._say)

    def _say(self) -> None:
        """Reports what is new, twice a second at most."""
        wait = self._reported_at + REPORT_EVERY_S - self._time.steady()
        if not self._news:
            return
        if wait > 0:
            self._once("report", wait, self._say)
            return
        self._news, self._reported_at = False, self._time.steady()
        report = self.reported()
        if report != self._last:
            self._last = report
            self._seq += 1
            told = msgspec.structs.replace(report, seq=self._seq, at=self._clock.now())
            self.says.retain("reported", messages.encode(told))

    def reported(self) -> Reported:
        """What the device is and does now."""
        state = self._machine.state
        return Reported(
            device=self.name,
            boot=self.disk.boot,
            seq=0,
            generation=state.generation,
            at=0.0,
            modules=states.reported(state, self._effects.live()),
            facts=self._facts,
            refused=self._refused or state.refused,
        )

    # -- what the controller says

    def _hear_desired(self, data: bytes) -> None:
        try:
            runs = states.proven(self._machine.state)
            desired = self._trust.verify(data, self._clock.now(), self._setting.metadata, runs)
        except FieldpostError as error:
            self._refused = failure_of(error)
            if isinstance(error, ExpiredError | UnreachableError | WorkspaceError):
                self._once("again", _AGAIN_S, lambda: self._hear_desired(data))
            self._changed()
            return
        self._refused = None
        self._clock.saw_signed(self._trust.floor)
        self._take(steps.Wanted(desired))

    def _hear_command(self, data: bytes) -> None:
        try:
            command = self._trust.verify_command(data, self._clock.now(), self._setting.metadata)
            results = self._commands.carry_out(command)
        except FieldpostError as error:
            logger.warning("%s: a command is refused: %s", self.name, error)
            return
        for result in results:
            self.says.send("cmd/res", encode(result))

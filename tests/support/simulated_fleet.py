"""A whole fleet in made-up time: real leader, records, keys and state machines; a broker that lies.

What devices say reaches the controller late, twice, in another order, or not at all; what is
retained stays at the broker. Hours pass within milliseconds, the same way for the same seed.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from edge.controller.asking import Asking
from edge.controller.controller import SETTLE_S
from edge.controller.entities import Device as Known
from edge.controller.leader import Leader
from edge.controller.ledger import Lease, Ledger
from edge.controller.permits import SignedPermits
from edge.controller.records import Fleet
from edge.protocol import messages
from edge.protocol.messages import Module, Reported, Soak, Status
from edge.protocol.topics import Kind, Topic, topic
from edge.simulator.device import Setting, SimulatedDevice
from edge.simulator.faults import Faults
from edge.simulator.virtual import VirtualTime
from serve.registry import Registry
from tests.support import fleettrust

HOUR_S: Final = 3600.0
DAY_S: Final = 24 * HOUR_S
SITE: Final = "default"
_TURN_S: Final = 2.0
_QUIET_S: Final = 30.0
_QUIET_TURN_S: Final = 9.0  # a controller that looks less often has not watched
_WILL_S: Final = 45.0
_REFRESH_S: Final = 600.0


class Network:
    """What happens to messages on their way.

    Args:
        seed: Of everything.
        lost: The part of messages to the controller that a broker drops without a word.
        twice: The part that comes twice.
        late_s: How late messages are at most: a later one may be earlier.
    """

    def __init__(
        self, seed: int = 0, *, lost: float = 0.0, twice: float = 0.0, late_s: float = 0.2
    ) -> None:
        self.chance = random.Random(f"network/{seed}")
        self.lost, self.twice, self.late_s = lost, twice, late_s

    def delays(self, *, may_lose: bool) -> list[float]:
        """When a message arrives, in seconds from now; as often as it does."""
        if may_lose and self.chance.random() < self.lost:
            return []
        count = 2 if self.chance.random() < self.twice else 1
        return [self.chance.uniform(0, self.late_s) for _ in range(count)]


class Line:
    """One device at the broker."""

    def __init__(self, fleet: SimulatedFleet, device: SimulatedDevice) -> None:
        self._fleet, self.device = fleet, device
        self.up = False
        self.session = 0
        self.kept: dict[Kind, bytes] = {}
        device.says = self

    def retain(self, kind: Kind, payload: bytes) -> None:
        self.kept[kind] = payload
        if self.up:
            self._fleet.say(self.device, kind, payload)

    def send(self, kind: Kind, payload: bytes) -> bool:
        if self.up:
            self._fleet.say(self.device, kind, payload)
        return self.up

    def connect(self) -> None:
        if self.up:
            return
        self.session += 1
        self.up = True
        self._fleet.say(self.device, "status", self._status(online=True))
        for kind, payload in self.kept.items():
            self._fleet.say(self.device, kind, payload)
        self._fleet.tell_retained(self.device)

    def cut(self) -> None:
        """The broker says the last will when it has heard nothing for a while."""
        if not self.up:
            return
        self.up = False
        will, session, boot = self._status(online=False), self.session, self.device.boot

        def die() -> None:
            if (self.session, self.device.boot) == (session, boot):
                self._fleet.say(self.device, "status", will)

        self._fleet.time.after(_WILL_S, die)

    def cut_power(self) -> None:
        self.cut()
        self.kept.clear()
        self.session = 0
        self.device.cut_power()

    def _status(self, *, online: bool) -> bytes:
        return messages.encode(
            Status(
                device=self.device.name,
                online=online,
                boot=self.device.boot,
                session=self.session,
            )
        )


class SimulatedFleet:
    """Devices, a broker and a controller that may be killed."""

    def __init__(
        self,
        registry: Registry,
        folder: Path,
        names: list[str],
        *,
        network: Network | None = None,
        faults: Faults | None = None,
    ) -> None:
        self.time = VirtualTime()
        self.network = network or Network()
        self.keys = fleettrust.Fleet(folder, clock=_Wall(self.time))  # type: ignore[arg-type]
        self.fleet = Fleet(registry.database, clock=self.time.wall)
        self.fleet.add_devices(names, SITE)
        self.retained: dict[Topic, bytes] = {}
        self.wishes: dict[str, list[str]] = {name: [] for name in names}
        lease = Lease(registry.database, "simulated", ticks=self.time.steady, lasts_s=10)
        assert lease.keep()
        self._ledger = Ledger(registry.database, lease)
        self._asking = Asking()
        self._up_at = 0.0
        self.leader: Leader | None = None
        self._heard_at = self._refresh_at = 0.0
        root = self.keys.repository.root(1)
        setting = Setting(self.time, root, self._metadata, faults or Faults())
        self.lines = {name: Line(self, SimulatedDevice(setting, SITE, name)) for name in names}
        for line in self.lines.values():
            line.device.begin()
        self.time.after(0, self._turn)

    def _metadata(self, name: str, most_bytes: int) -> bytes | None:
        return self.keys.fetch(name, most_bytes)

    # -- the broker

    def say(self, device: SimulatedDevice, kind: Kind, payload: bytes) -> None:
        """A device says something."""
        where = topic(SITE, device.name, kind)
        if where.retained:
            self.retained[where] = payload
        for delay in self.network.delays(may_lose=True):
            self.time.after(delay, lambda: self._hear(where, payload, retained=False))

    def tell_retained(self, device: SimulatedDevice) -> None:
        """What was said while it was away."""
        payload = self.retained.get(topic(SITE, device.name, "desired"))
        if payload is not None:
            self._tell(topic(SITE, device.name, "desired"), payload)

    def _tell(self, where: Topic, payload: bytes) -> None:
        line = self.lines[where.device]

        def arrive() -> None:
            if line.up:
                line.device.came(where.kind, payload)

        for delay in self.network.delays(may_lose=False):
            self.time.after(delay, arrive)

    # -- the controller

    def start_controller(self) -> None:
        """One that knows what the records say, and hears what is retained."""
        self.leader = Leader(
            self._ledger.load(),
            signer=self.keys.director,
            permits=SignedPermits(self.keys.repository, ticks=self.time.steady),
            now=self.time.wall(),
        )
        self._up_at = self.time.steady()
        self._asking.connected(self._up_at)
        self.leader.publish_all(self.time.wall())
        for where, payload in list(self.retained.items()):
            if where.kind != "desired" and self.network.delays(may_lose=True):
                self._hear(where, payload, retained=True)

    def kill_controller(self) -> None:
        """What was not written is lost."""
        self.leader = None

    def _hear(self, where: Topic, payload: bytes, *, retained: bool) -> None:
        leader, now = self.leader, self.time.wall()
        if leader is None:
            return
        if not retained:
            self._heard_at = self.time.steady()
        if where.kind == "reported":
            leader.reported(where, messages.decode(payload, Reported), now, retained=retained)
        elif where.kind == "status":
            leader.status(where, messages.decode(payload, Status), now, retained=retained)

    def _turn(self) -> None:
        """What the controller's loop does, every few seconds."""
        quiet = self.time.steady() - self._heard_at > _QUIET_S
        self.time.after(_QUIET_TURN_S if quiet else _TURN_S, self._turn)
        leader, now = self.leader, self.time.wall()
        if leader is None:
            return
        self._keep_fresh()
        if self._ledger.changes() != leader.seen:
            leader.reload(self._ledger.load(), now)
        if self.time.steady() - self._up_at > SETTLE_S:
            leader.tick(now)
        leader.refresh += self._asking.due(self.time.steady(), leader.retained_topics)
        self._flush(leader)

    def _keep_fresh(self) -> None:
        """Renews what is past half of its life, as the controller's process does."""
        if self.time.steady() >= self._refresh_at:
            self._refresh_at = self.time.steady() + _REFRESH_S
            if self.keys.repository.refresh_due():
                self.keys.publish()

    def _flush(self, leader: Leader) -> None:
        changes = leader.changes()
        if changes is not None:
            assert self._ledger.write(changes, leader.seen)
            leader.written()
        outgoing, leader.outgoing = leader.outgoing, []
        for message in outgoing:
            if message.to.retained:
                self.retained[message.to] = message.payload
            self._tell(message.to, message.payload)
        refresh, leader.refresh = leader.refresh, []
        for where in refresh:
            payload = self.retained.get(where)
            if payload is not None and self.network.delays(may_lose=True):
                self._hear(where, payload, retained=True)

    # -- what people do and see

    def permit(self, text: str) -> Module:
        """A package that may run."""
        soak = Soak(seconds=5, most_errors=0.1)
        return msgspec.structs.replace(self.keys.permit(text), soak=soak)

    def deploy(self, module: Module, **given: Any) -> None:
        """Rolls it out to all."""
        self.fleet.deploy("iris", {"main": module}, **({"condition": "*"} | given))

    def state(self) -> str:
        """Of the newest rollout."""
        return str(self.fleet.rollout("iris").rollout.state)

    def counts(self) -> Mapping[str, int]:
        """Of the newest rollout."""
        return self.fleet.rollout("iris").counts()

    def known(self) -> dict[str, Known]:
        """The devices as the records have them."""
        return {one.name: one for one in self.fleet.devices()}

    def until(self, true: Callable[[], bool], within_s: float) -> None:
        """Lets time pass until something is true."""
        assert self.time.until(true, within_s, 5.0), (self.state(), self.counts())


class _Wall:
    """The keys' clock is the simulation's."""

    def __init__(self, time: VirtualTime) -> None:
        self._time = time

    def __call__(self) -> float:
        return self._time.wall()

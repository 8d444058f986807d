"""What happens in the demo: version 1 everywhere, a version 2 that halts by itself, two go back."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from edge.controller.broker import BrokerSettings
from edge.controller.controller import Controller
from edge.controller.entities import Device, Member, Plan, Rollout
from edge.controller.permits import SignedPermits
from edge.controller.records import Fleet
from edge.controller.rollouts import Course
from edge.demo import brokers
from edge.demo.brokers import Kind, Running
from edge.protocol.messages import Module, Soak
from edge.security import keys
from edge.security.fleet import FleetSecurity
from edge.simulator import roster
from edge.simulator.crowd import Crowd
from edge.simulator.faults import Broken, Faults
from edge.workspace import open_workspace
from scoring import digest as digests
from scoring.errors import DeadlineExceededError

SITE: Final = "hall"
DEPLOYMENT: Final = "detect"
MODULE: Final = "main"
BOARDS: Final = {
    "camera-1": "rev-a",
    "camera-2": "rev-b",
    "camera-3": "rev-a",
    "camera-4": "rev-b",
    "camera-5": "rev-a",
}
"""Both of rev-b are in the second wave of the second rollout; the third wave is never begun."""

BROKEN: Final = frozenset(name for name, board in BOARDS.items() if board == "rev-b")
_PLAN: Final = Plan(waves=("1", "4", "100%"), most_failures="1", timeout_s=40.0)
_LOOK_S: Final = 0.1
_STEP_S: Final = 55.0
_FAILURE: Final = ("code", "message", "phase")


class Pace(NamedTuple):
    """How fast it goes.

    Attributes:
        step_s: What a step of an update takes on a device.
        soak_s: How long a version is watched before it is good.
    """

    step_s: float = 0.5
    soak_s: float = 2.0


class Version(msgspec.Struct, frozen=True, kw_only=True):
    """A package of the demo.

    Attributes:
        version: Its number.
        package: The digest of its manifest.
        release: Its counter in the signed metadata.
        broken_on: The devices on which it does not work.
    """

    version: int
    package: str
    release: int
    broken_on: list[str] = []


class Picture(NamedTuple):
    """The fleet as the controller knows it now.

    Attributes:
        devices: By name.
        rollouts: The oldest first.
        versions: Digest to number.
    """

    devices: list[Device]
    rollouts: list[Rollout]
    versions: dict[str, int]


class Screen:
    """Where it is told; this one shows nothing."""

    def say(self, sentence: str) -> None:
        """Tells what happens next."""

    def show(self, picture: Picture) -> None:
        """Shows the fleet."""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """How it ended.

    Attributes:
        broker: Which one, where, and its process's id.
        devices: Each with what it runs.
        versions: The packages.
        rollouts: Each with its state, and that of each of its devices.
        seconds: What it took.
        as_told: Whether all came as it had to.
    """

    broker: dict[str, str | int]
    devices: list[dict[str, object]]
    versions: list[Version]
    rollouts: list[dict[str, object]]
    seconds: float
    as_told: bool


def play(kind: Kind, folder: Path, screen: Screen, pace: Pace | None = None) -> Outcome:
    """Plays it from the beginning to the end; nothing runs afterwards.

    Args:
        kind: Of the broker.
        folder: An empty one; all files are in it.
        screen: Where it is told.
        pace: How fast it goes.

    Raises:
        MissingDependencyError: The broker is not on this machine.
        DeploymentFailedError: It does not start.
        DeadlineExceededError: Something does not happen in time.
    """
    begun = time.monotonic()
    with contextlib.ExitStack() as stack:
        workspace = stack.enter_context(open_workspace(folder / "workspace"))
        security = FleetSecurity(folder / "keys", workspace.registry.database)
        security.init(folder / "offline", root_keys=1, threshold=1)
        screen.say("Keys, a certificate authority and signed metadata of a new fleet are made.")
        broker = stack.enter_context(brokers.running(kind, folder / "broker", security, SITE))
        screen.say(f"{broker.kind} runs at {broker.url} (process {broker.pid}).")
        fleet = Fleet(workspace.registry.database)
        stage = Stage(fleet, security, folder, screen, pace or Pace())
        stack.enter_context(stage.controller(broker.controller))
        stack.enter_context(stage.cameras(broker))
        stage.first()
        stage.second()
        screen.show(stage.picture())
        return stage.outcome(broker, time.monotonic() - begun)


class Stage:
    """The fleet, and what is done with it.

    Args:
        fleet: The records.
        security: Its keys.
        folder: Where the offline keys are.
        screen: Where it is told.
        pace: How fast it goes.
    """

    def __init__(
        self, fleet: Fleet, security: FleetSecurity, folder: Path, screen: Screen, pace: Pace
    ) -> None:
        self._fleet, self._security, self._screen, self._pace = fleet, security, screen, pace
        self._signer = keys.read(folder / "offline" / "targets.pem")
        self.versions = [self._permit(1, []), self._permit(2, sorted(BROKEN))]

    def _permit(self, number: int, broken_on: list[str]) -> Version:
        """Signs that a version may run."""
        manifest = json.dumps({"schemaVersion": 2, "name": DEPLOYMENT, "version": number}).encode()
        package = digests.of_bytes(manifest)
        release, metadata = self._security.permit(
            {package: len(manifest)}, name=DEPLOYMENT, signers=[self._signer]
        )
        self._security.publish(targets=metadata)
        return Version(
            version=number, package=package, release=release.release, broken_on=broken_on
        )

    @contextlib.contextmanager
    def controller(self, settings: BrokerSettings) -> Iterator[Controller]:
        """A controller that leads until the end of the block."""
        made = Controller(
            self._fleet,
            settings,
            signer=self._security.director,
            permits=SignedPermits(self._security.repository),
        )
        thread = threading.Thread(target=made.run, name="controller", daemon=True)
        thread.start()
        try:
            self._until("the controller connects", made.connected.is_set)
            self._screen.say("A controller leads the fleet.")
            yield made
        finally:
            made.close()
            thread.join()

    @contextlib.contextmanager
    def cameras(self, broker: Running) -> Iterator[Crowd]:
        """Five devices that live until the end of the block."""
        metadata = roster.Metadata(self._security.repository)
        known = []
        for name, board in BOARDS.items():
            known += roster.enlist(self._fleet, [name], SITE, {"board": board})
        broken = Broken(package=self.versions[1].package, devices=BROKEN)
        faults = Faults(step_s=self._pace.step_s, broken=(broken,))
        with Crowd(
            known, broker.devices, root=metadata.root, metadata=metadata, faults=faults
        ) as crowd:
            self._until("the devices connect", lambda: self._all(lambda one: one.online))
            how = "a certificate each" if broker.devices.tls else "a password"
            self._screen.say(f"Five simulated devices are connected, let in by {how}.")
            yield crowd

    # -- what happens

    def first(self) -> None:
        """Version 1, to all."""
        self._screen.say("Version 1 is rolled out: to one device, then to four, then to all.")
        self._deploy(self.versions[0])
        self._until("version 1 is everywhere", lambda: self._state() == "complete")
        self._screen.say("Version 1 is complete: all five devices run it.")

    def second(self) -> None:
        """Version 2, which two of them cannot run."""
        names = " and ".join(self.versions[1].broken_on)
        self._screen.say(f"Version 2 is rolled out. It is broken on {names}.")
        self._deploy(self.versions[1])
        self._until("version 2 is halted", lambda: self._state() == "halted")
        self._screen.say(f"The rollout has halted by itself. {self._course().rollout.note}")
        self._until("the two go back", lambda: self._all(self._is_where_it_belongs))
        self._screen.say(f"{names} went back to version 1 by themselves, and answer.")
        self._screen.say("The last device was never told of version 2.")

    def _deploy(self, version: Version) -> None:
        soak = Soak(seconds=self._pace.soak_s, most_errors=0.1)
        module = Module(package=version.package, release=version.release, soak=soak, timeout_s=30.0)
        self._fleet.deploy(DEPLOYMENT, {MODULE: module}, condition="*", plan=_PLAN)

    def _is_where_it_belongs(self, device: Device) -> bool:
        module = device.modules.get(MODULE)
        waves = {one.device: one.wave for one in self._course().members}
        told = waves[device.name] <= self._course().rollout.wave
        wanted = self.versions[told and device.name not in BROKEN].package
        phase = "reverted" if device.name in BROKEN else "good"
        return module is not None and (module.package, module.phase, module.healthy) == (
            wanted,
            phase,
            True,
        )

    def _course(self) -> Course:
        return self._fleet.rollout(DEPLOYMENT)

    def _state(self) -> str:
        return str(self._course().rollout.state)

    def _all(self, true: Callable[[Device], bool]) -> bool:
        return all(true(device) for device in self._fleet.devices())

    def _until(self, what: str, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _STEP_S
        while not condition():
            self._screen.show(self.picture())
            if time.monotonic() > deadline:
                raise DeadlineExceededError(
                    f"It did not happen within {_STEP_S:.0f} s that {what}.",
                    hint="Is the machine very busy? Run it again with --debug.",
                )
            time.sleep(_LOOK_S)

    # -- what is seen of it

    def picture(self) -> Picture:
        """The fleet as the controller knows it now."""
        versions = {one.package: one.version for one in self.versions}
        rollouts = sorted(self._fleet.rollouts(), key=lambda one: one.revision)
        return Picture(self._fleet.devices(), rollouts, versions)

    def outcome(self, broker: Running, seconds: float) -> Outcome:
        """How it ended."""
        picture = self.picture()
        courses = [self._fleet.rollout(one.id) for one in picture.rollouts]
        states = [course.rollout.state for course in courses]
        as_told = states == ["complete", "halted"] and self._all(self._is_where_it_belongs)
        return Outcome(
            broker={"kind": broker.kind, "url": broker.url, "pid": broker.pid},
            devices=[_device(one, picture.versions) for one in picture.devices],
            versions=self.versions,
            rollouts=[_rollout(course) for course in courses],
            seconds=round(seconds, 1),
            as_told=as_told,
        )


def _device(device: Device, versions: dict[str, int]) -> dict[str, object]:
    module = device.modules.get(MODULE)
    failure = module.failure if module else None
    return {
        "name": device.name,
        "site": device.site,
        "tags": device.tags,
        "online": device.online,
        "version": versions.get(module.package, 0) if module else 0,
        "package": module.package if module else "",
        "phase": module.phase if module else "",
        "healthy": bool(module and module.healthy),
        "failure": failure and {name: getattr(failure, name) for name in _FAILURE},
    }


def _rollout(course: Course) -> dict[str, object]:
    rollout = course.rollout
    return {
        "id": rollout.id,
        "state": rollout.state,
        "wave": rollout.wave + 1,
        "waves": rollout.waves,
        "note": rollout.note,
        "counts": course.counts(),
        "devices": {one.device: one.state for one in _by_name(course)},
    }


def _by_name(course: Course) -> list[Member]:
    return sorted(course.members, key=lambda one: one.device)

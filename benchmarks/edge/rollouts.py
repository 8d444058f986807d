"""A rollout to many simulated devices, and what a device costs the controller."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from benchmarks.edge.place import Place, open_place, processor_s, resident_mib, until
from benchmarks.results import Row
from edge.controller.entities import Plan
from edge.protocol.messages import Module
from edge.simulator import roster

_WITHIN_S = 60.0
_FLAT = 1.5


class Rollout(NamedTuple):
    """One that was measured.

    Attributes:
        devices: How many.
        seconds: From the command to the last report.
        controller_s: Of processors, by the controller.
        broker_s: By Mosquitto.
        memory_mib: Of the controller, at most.
    """

    devices: int
    seconds: float
    controller_s: float
    broker_s: float
    memory_mib: float

    @property
    def cost_ms(self) -> float:
        """Of the controller's processor, for each device."""
        return self.controller_s / self.devices * 1000


def measure(folder: Path, devices: int, plan: Plan | None = None) -> Rollout:
    """A new version to so many devices, by the default waves."""
    plan = plan or Plan()
    with (
        open_place(folder / f"rollout-{devices}", devices) as place,
        place.crowd(roster.names("sim", devices)),
    ):
        until("all are online", lambda: place.online() == devices, 300)
        first, second = place.permit("first"), place.permit("second")
        _roll(place, first, devices, plan)
        return _roll(place, second, devices, plan)


def _roll(place: Place, module: Module, devices: int, plan: Plan) -> Rollout:
    broker = place.broker.process
    assert broker is not None
    before = processor_s(place.controller.pid), processor_s(broker.pid)
    made = place.fleet.deploy("bench", {"main": module}, condition="*", plan=plan)

    def over() -> bool:
        return _state(place, made.rollout.id) != "running"

    seconds = until("the rollout ends", over, 600)
    course = place.fleet.rollout(made.rollout.id)
    assert course.counts() == {"good": devices}, course.rollout.note
    assert all(one.modules["main"].package == module.package for one in place.fleet.devices())
    return Rollout(
        devices,
        seconds,
        processor_s(place.controller.pid) - before[0],
        processor_s(broker.pid) - before[1],
        resident_mib(place.controller.pid),
    )


def _state(place: Place, rollout: str) -> str:
    name, _, number = rollout.partition(":")
    with place.fleet.database.read() as connection:
        found = connection.execute(
            "SELECT state FROM fleet_rollouts WHERE deployment = :name AND revision = :number",
            name=name,
            number=int(number),
        )
    return str(found[0]["state"])


def rows(folder: Path, *, quick: bool) -> list[Row]:
    """The time of a thousand, and the cost of each among more and more."""
    few, many, most = (20, 40, 80) if quick else (100, 1000, 5000)
    found = [measure(folder, count) for count in (few, many, most)]
    middle = found[1]
    costs = ", ".join(f"{one.devices}: {one.cost_ms:.2f} ms" for one in found)
    times = ", ".join(f"{one.devices}: {one.seconds:.1f} s" for one in found)
    ratio = found[-1].cost_ms / found[0].cost_ms
    return [
        Row(
            work=f"rollout to {many} simulated agents, from command to the last report",
            unit="s",
            ours=middle.seconds,
            target=f"at most {_WITHIN_S:.0f} s",
            reached=middle.seconds <= _WITHIN_S,
            notes=f"Four waves, each soaking for a second; {times}; the broker used "
            f"{middle.broker_s:.1f} s of a processor, the controller {middle.controller_s:.1f} s "
            f"and {middle.memory_mib:.0f} MiB at most.",
        ),
        Row(
            work=f"cost of a device in a rollout: {most} devices beside {few}",
            unit="times",
            ours=ratio,
            target=f"flat: at most {_FLAT:g} times",
            reached=ratio <= _FLAT,
            notes=f"Of the controller's processor, for each device: {costs}.",
        ),
    ]

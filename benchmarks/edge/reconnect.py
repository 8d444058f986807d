"""All devices come back at once: the broker is killed and started again."""

from __future__ import annotations

from pathlib import Path

from benchmarks.edge.place import open_place, processor_s, resident_mib, until
from benchmarks.results import Row
from edge.agent.outbox import MOST_QUEUED
from edge.controller.broker import MOST_INBOX
from edge.controller.entities import Device
from edge.simulator import roster
from edge.simulator.crowd import Crowd

_WITHIN_S = 120.0
_CONNECT_S = 60.0


def rows(folder: Path, *, quick: bool) -> list[Row]:
    """Ten thousand of them."""
    devices = 100 if quick else 10_000
    with open_place(folder / "reconnect", devices) as place:
        over_s = 0.0 if quick else _CONNECT_S
        with place.crowd(roster.names("sim", devices), over_s=over_s) as crowd:
            until("all are online", lambda: place.online() == devices, 600, 0.5)
            place.broker.kill()
            until("all have lost it", lambda: crowd.tally().connected == 0, 60)
            before = processor_s(place.controller.pid)
            place.broker.start()
            seconds = until(
                "all are served again", lambda: _served(place.fleet.devices(), crowd), 600, 0.25
            )
            used = processor_s(place.controller.pid) - before
            memory = resident_mib(place.controller.pid)
    return [
        Row(
            work=f"{devices} devices reconnecting at once, until the controller has heard each",
            unit="s",
            ours=seconds,
            target=f"at most {_WITHIN_S:.0f} s, no queue without a bound",
            reached=seconds <= _WITHIN_S,
            notes=f"The broker was killed and started again; the controller used {used:.1f} s of a "
            f"processor and {memory:.0f} MiB at most. Bounds: {MOST_INBOX} messages that wait for "
            f"the controller, {MOST_QUEUED} of a device, 100000 of each client at the broker.",
        )
    ]


def _served(devices: list[Device], crowd: Crowd) -> bool:
    """Whether the newest connection of each device is what the records know."""
    if not all(wire.up for wire in crowd.wires.values()):
        return False
    sessions = {name: wire.sessions for name, wire in crowd.wires.items()}
    return all(one.online and one.session == sessions[one.name] for one in devices)

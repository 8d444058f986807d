"""Devices in made-up time, at a fleet with real keys and signed metadata."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest

from edge.protocol import messages
from edge.protocol.messages import CommandResult, Module, Phase, Reported, Soak
from edge.protocol.topics import Kind
from edge.simulator.device import Setting, SimulatedDevice
from edge.simulator.faults import Faults
from edge.simulator.virtual import VirtualTime
from tests.support.fleettrust import Fleet


class Heard:
    """What a device said."""

    def __init__(self) -> None:
        self.reports: list[Reported] = []
        self.results: list[CommandResult] = []

    def retain(self, kind: Kind, payload: bytes) -> None:
        assert kind == "reported"
        self.reports.append(messages.decode(payload, Reported))

    def send(self, kind: Kind, payload: bytes) -> bool:
        assert kind == "cmd/res"
        self.results.append(messages.decode(payload, CommandResult))
        return True

    @property
    def phases(self) -> list[Phase]:
        """Of the module `main`, without repetitions."""
        found: list[Phase] = []
        for report in self.reports:
            main = report.modules.get("main")
            if main is not None and (not found or found[-1] != main.phase):
                found.append(main.phase)
        return found


@dataclass
class Bench:
    """One device and its fleet."""

    folder: Path
    time: VirtualTime = field(default_factory=VirtualTime)
    heard: Heard = field(default_factory=Heard)
    generation: int = 0

    def __post_init__(self) -> None:
        self.fleet = Fleet(self.folder)

    def device(self, **faults: Any) -> SimulatedDevice:
        """The device `hall/camera`."""
        setting = Setting(self.time, self.fleet.repository.root(1), self.fetch, Faults(**faults))
        device = SimulatedDevice(setting, "hall", "camera")
        device.says = self.heard
        device.begin()
        return device

    def fetch(self, name: str, most_bytes: int) -> bytes | None:
        return self.fleet.fetch(name, most_bytes)

    def module(self, text: str, **changes: Any) -> Module:
        """A permitted package."""
        self.fleet.clock.now = self.time.wall()
        values: dict[str, Any] = {"soak": Soak(seconds=5, most_errors=0.1)} | changes
        return msgspec.structs.replace(self.fleet.permit(text), **values)

    def wish(self, module: Module | None, **changes: object) -> bytes:
        """A signed wish."""
        self.generation += 1
        self.fleet.clock.now = self.time.wall()
        return self.fleet.wish(self.generation, module, **changes)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path / "fleet")


Make = Callable[[], Bench]

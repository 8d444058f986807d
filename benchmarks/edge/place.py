"""A fleet to measure: workspace, keys, a real Mosquitto, and a controller that is a process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edge.agent.config import Broker
from edge.controller.records import Fleet
from edge.protocol.messages import Module, Soak
from edge.security import broker as configs
from edge.security import keys
from edge.security.fleet import FleetSecurity
from edge.simulator import roster
from edge.simulator.crowd import Crowd, raise_files
from edge.simulator.faults import Faults
from edge.simulator.wire import Access
from edge.workspace import Workspace, open_workspace
from scoring import digest as digests
from tests.support.brokers import Mosquitto, free_port

FIELDPOST = str(Path(sys.executable).with_name("fieldpost"))
_TICKS = os.sysconf("SC_CLK_TCK")
_USER, _SYSTEM = 11, 12  # of /proc/PID/stat, behind the name


class BenchError(Exception):
    """Something that is to be measured did not happen."""


def processor_s(pid: int) -> float:
    """What a process has used of processors until now."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[_USER]) + int(fields[_SYSTEM])) / _TICKS


def resident_mib(pid: int) -> float:
    """The most that a process has had resident."""
    status = Path(f"/proc/{pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def until(what: str, true: Callable[[], bool], within_s: float, look_s: float = 0.05) -> float:
    """Waits for something; how long that took."""
    begun = time.perf_counter()
    while not true():
        if time.perf_counter() - begun > within_s:
            raise BenchError(f"{what}: not within {within_s:.0f} s")
        time.sleep(look_s)
    return time.perf_counter() - begun


@dataclass
class Place:
    """Everything of one fleet.

    Attributes:
        folder: With everything.
        workspace: Opened.
        fleet: Its records.
        security: Its keys.
        broker: Mosquitto, for anyone on this machine.
        controller: The process.
    """

    folder: Path
    workspace: Workspace
    fleet: Fleet
    security: FleetSecurity
    broker: Mosquitto
    controller: subprocess.Popen[bytes] = field(init=False)
    url: str = ""

    def start_controller(self) -> None:
        """Returns when it leads and has answered."""
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        command = [FIELDPOST, "fleet", "controller", "--plain", "--listen", f"127.0.0.1:{port}"]
        command += ["--broker", self.broker.url, "--workspace", str(self.folder / "workspace")]
        with (self.folder / "controller.log").open("ab") as log:
            self.controller = subprocess.Popen(
                [*command, "--folder", str(self.security.folder)], stdout=log, stderr=log
            )
        until("the controller is up", self._leads, 60)

    def _leads(self) -> bool:
        if self.controller.poll() is not None:
            raise BenchError((self.folder / "controller.log").read_text()[-2000:])
        return "broker up" in (self.folder / "controller.log").read_text()

    def permit(self, text: str) -> Module:
        """A package that may run, which nobody has."""
        manifest = json.dumps({"schemaVersion": 2, "name": text}).encode()
        return self.permit_package(digests.of_bytes(manifest), len(manifest))

    def permit_package(self, package: str, length: int) -> Module:
        """A package that may run."""
        signer = keys.read(self.folder / "offline" / "targets.pem")
        release, metadata = self.security.permit({package: length}, name="bench", signers=[signer])
        self.security.publish(targets=metadata)
        return Module(package=package, release=release.release, soak=Soak(seconds=1.0))

    def crowd(self, names: Sequence[str], **given: Any) -> Crowd:
        """Simulated devices, known to the fleet."""
        metadata = roster.Metadata(self.security.repository)
        known = roster.enlist(self.fleet, names, "default")
        access = Access(Broker("127.0.0.1", self.broker.port, False), keepalive_s=120)
        return Crowd(
            known, access, root=metadata.root, metadata=metadata,
            faults=Faults(step_s=0.2), **given,
        )  # fmt: skip

    def online(self) -> int:
        """How many devices the controller knows to be connected."""
        with self.fleet.database.read() as connection:
            found = connection.execute("SELECT COUNT(*) AS n FROM fleet_devices WHERE online = 1")
        return int(found[0]["n"])

    def close(self) -> None:
        """Ends the controller."""
        if hasattr(self, "controller"):
            self.controller.terminate()
            self.controller.wait(30)


@contextmanager
def open_place(folder: Path, devices: int) -> Iterator[Place]:
    """A fleet for so many devices."""
    raise_files(devices + 1000)
    folder.mkdir(parents=True)
    described = configs.Broker(folder=folder, data=folder)  # as 'fleet broker-config' has it
    settings = (
        "max_connections -1",
        f"max_queued_messages {described.queued_messages}",
        f"max_queued_bytes {described.queued_bytes}",
    )
    broker = Mosquitto(folder / "broker", persistent=True, settings=settings)
    with open_workspace(folder / "workspace") as workspace:
        security = FleetSecurity(folder / "keys", workspace.registry.database)
        security.init(folder / "offline", root_keys=1, threshold=1)
        fleet = Fleet(workspace.registry.database)
        place = Place(folder, workspace, fleet, security, broker)
        broker.start()
        try:
            place.start_controller()
            yield place
        finally:
            place.close()
            broker.kill()

"""Controllers with what they need: a workspace, a broker, signed metadata, devices."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edge.controller.broker import parse_url
from edge.controller.controller import Controller
from edge.controller.permits import SignedPermits
from edge.controller.records import Fleet
from edge.protocol.messages import Module
from serve.registry import Registry
from tests.support import brokers, fleettrust
from tests.support.fakedevices import Behaviour, FakeDevice, always_good

PATIENCE_S = 40.0


def eventually(condition: Callable[[], Any], within_s: float = PATIENCE_S) -> Any:
    """What the condition says once that is true."""
    deadline = time.monotonic() + within_s
    while not (found := condition()):
        assert time.monotonic() < deadline, "it never came to be"
        time.sleep(0.05)
    return found


@dataclass
class Site:
    """A fleet with its broker."""

    registry: Registry
    broker: brokers.Mosquitto
    trust: fleettrust.Fleet
    devices: dict[str, FakeDevice] = field(default_factory=dict)
    running: dict[Controller, threading.Thread] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.fleet = Fleet(self.registry.database)

    def controller(self, **given: Any) -> Controller:
        """Starts one."""
        made = Controller(
            self.fleet,
            parse_url(self.broker.url),
            signer=self.trust.director,
            permits=SignedPermits(self.trust.repository),
            **({"lease_s": 2.0} | given),
        )
        thread = threading.Thread(target=made.run, daemon=True)
        self.running[made] = thread
        thread.start()
        return made

    def stop(self, controller: Controller) -> None:
        controller.close()
        self.running.pop(controller).join(30)

    def device(self, name: str, behaviour: Behaviour = always_good, **given: Any) -> FakeDevice:
        """A device that is known, and there."""
        self.fleet.add_device(name, given.get("site", "default"))
        made = FakeDevice(name, self.broker.port, behaviour, **given).start()
        self.devices[name] = made
        assert made.up.wait(PATIENCE_S)
        return made

    def deploy(self, *texts: str, name: str = "iris", **given: Any) -> str:
        """Rolls out modules of packages that are named by texts."""
        modules = {f"m{n}": self.trust.permit(text) for n, text in enumerate(texts)}
        return self.fleet.deploy(name, modules, **({"condition": "*"} | given)).rollout.id

    def permit(self, text: str) -> Module:
        return self.trust.permit(text)

    def until(self, state: str, ref: str = "iris") -> dict[str, int]:
        """Waits for a rollout to be in a state; its counts."""
        eventually(lambda: self.fleet.rollout(ref).rollout.state == state)
        return self.fleet.rollout(ref).counts()

    def close(self) -> None:
        for device in self.devices.values():
            device.stop()
        for controller in list(self.running):
            self.stop(controller)


@contextmanager
def site(folder: Path, **given: Any) -> Iterator[Site]:
    """A fleet that is taken down at the end of the block; skips where there is no broker."""
    with (
        brokers.running(folder / "broker", **given) as broker,
        Registry(str(folder / "workspace")) as registry,
    ):
        made = Site(registry, broker, fleettrust.Fleet(folder / "trust"))
        try:
            yield made
        finally:
            made.close()

"""Devices at a real broker that do what a test says: they believe every wish and run nothing."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from paho.mqtt.client import Client, MQTTMessage, MQTTv311
from paho.mqtt.enums import CallbackAPIVersion

from edge.protocol import envelope, messages
from edge.protocol.messages import (
    Command,
    CommandResult,
    Desired,
    Failure,
    ModuleState,
    Phase,
    Reported,
    Status,
)
from edge.protocol.topics import Kind, for_device, topic

Behaviour = Callable[[str, Desired], Phase | None]
"""What becomes of a wish for a device; None: it says nothing."""


def always_good(_device: str, _desired: Desired) -> Phase | None:
    """Every version works."""
    return "good"


class FakeDevice:
    """One device.

    Args:
        name: Of the device.
        port: Of a broker on the loopback.
        behaviour: What becomes of its wishes.
        site: Of the device.
        boot: Its boot counter.
    """

    def __init__(
        self,
        name: str,
        port: int,
        behaviour: Behaviour = always_good,
        *,
        site: str = "default",
        boot: int = 1,
        facts: Mapping[str, Any] | None = None,
        login: tuple[str, str] | None = None,
    ) -> None:
        self.name = name
        self.site = site
        self.boot = boot
        self.seq = 0
        self.behaviour = behaviour
        self.facts = dict(facts or {})
        self.desired: Desired | None = None
        self.wishes: list[Desired] = []
        self.told: list[Desired] = []
        self.commands: list[Command] = []
        self.up = threading.Event()
        self._good: dict[str, str] = {}
        self.client = Client(
            CallbackAPIVersion.VERSION2, client_id=name, protocol=MQTTv311, clean_session=True
        )
        if login:
            self.client.username_pw_set(*login)
        will = self._status(online=False)
        self.client.will_set(self.topic("status"), will, 1, retain=True)
        self.client.on_connect = self._on_connect
        self.client.on_message = self._on_message
        self.client.reconnect_delay_set(1, 2)
        self.client.connect_async("127.0.0.1", port, 30)

    def topic(self, kind: Kind) -> str:
        return str(topic(self.site, self.name, kind))

    def _status(self, *, online: bool) -> bytes:
        return messages.encode(Status(device=self.name, online=online, boot=self.boot, session=1))

    def start(self) -> FakeDevice:
        self.client.loop_start()
        return self

    def stop(self) -> None:
        """In peace."""
        self.client.publish(self.topic("status"), self._status(online=False), 1, retain=True)
        self.client.disconnect()
        self.client.loop_stop()

    def vanish(self) -> None:
        """As if its power were cut: the broker says its will."""
        sock = self.client.socket()
        self.client.on_connect = None
        self.client.loop_stop()
        if sock is not None:
            sock.close()

    def _on_connect(self, client: Any, *_: Any) -> None:
        client.subscribe([(one, 1) for one in for_device(self.site, self.name)])
        client.publish(self.topic("status"), self._status(online=True), 1, retain=True)
        self.report()
        self.up.set()

    def _on_message(self, _client: Any, _data: Any, message: MQTTMessage) -> None:
        if message.topic.endswith("/desired"):
            body = envelope.decode(bytes(message.payload)).body()
            self._wish(messages.decode(body, Desired))
        elif message.topic.endswith("/cmd/req"):
            body = envelope.decode(bytes(message.payload)).body()
            self._command(messages.decode(body, Command))

    def _wish(self, desired: Desired) -> None:
        self.told.append(desired)
        if self.desired is not None and desired.generation <= self.desired.generation:
            return
        self.desired = desired
        self.wishes.append(desired)
        phase = self.behaviour(self.name, desired)
        if phase is not None:
            self.report("fetching")
            self.report(phase)

    def report(self, phase: Phase = "good", refused: Failure | None = None) -> None:
        """Says that all modules are in a phase."""
        self.seq += 1
        wanted = self.desired.modules if self.desired else {}
        if phase == "good":
            self._good = {name: module.package for name, module in wanted.items()}
        failure = Failure(code="deployment_failed", message="It broke.", phase="probing")
        states = {
            name: ModuleState(
                phase=phase,
                wanted=module.package,
                package=self._good.get(name, ""),
                healthy=True,
                failure=failure if phase in {"failed", "reverted"} else None,
            )
            for name, module in wanted.items()
        }
        report = Reported(
            device=self.name,
            boot=self.boot,
            seq=self.seq,
            generation=self.desired.generation if self.desired else 0,
            at=time.time(),
            modules=states,
            facts=self.facts,
            refused=refused,
        )
        self.client.publish(self.topic("reported"), messages.encode(report), 1, retain=True)

    def _command(self, command: Command) -> None:
        self.commands.append(command)
        for part, text in enumerate(("what it ", "said")):
            result = CommandResult(device=self.name, id=command.id, part=part, parts=2, output=text)
            self.client.publish(self.topic("cmd/res"), messages.encode(result), 1)

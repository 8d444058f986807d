"""Conversations of the protocol from data files, with a real agent or a real controller in them.

Each file of `tests/conversations/` is one: steps that the other side takes, and what has to be
heard then. `$one` is the digest of the package (or of the text) `one`; bodies name what has to be
in a message, which may hold more.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import paho.mqtt.client as mqtt
import pytest
import yaml
from paho.mqtt.enums import CallbackAPIVersion

from edge.agent.device import Device
from edge.controller.entities import Plan
from edge.protocol import envelope, topics
from edge.protocol.messages import Command, Module, Source
from edge.security.director import Director
from edge.security.drafts import permit, sign_draft
from edge.security.keys import SigningKey
from scoring import digest as digests
from scoring.errors import FieldpostError
from tests.support import controllers, edge_site
from tests.support.blob_source import Made
from tests.support.controllers import Site
from tests.support.edge_site import EdgeSite

FOLDER = Path(__file__).parents[1] / "conversations"
PATIENCE_S = 40.0


class Heard:
    """Messages on the broker, in their order; each is expected once."""

    def __init__(self) -> None:
        self.messages: list[tuple[str, bool, dict[str, Any]]] = []
        self._next: dict[str, int] = {}

    def take(self, kind: str, payload: bytes, retain: bool) -> None:
        try:
            signed = kind in {"desired", "cmd/req"}
            data = envelope.decode(payload).body() if signed else payload
            self.messages.append((kind, retain, msgspec.json.decode(data)))
        except (FieldpostError, msgspec.DecodeError):  # what was said itself may be anything
            self.messages.append((kind, retain, {}))

    def expect(self, step: Mapping[str, Any]) -> None:
        """Waits for a message that was not expected before."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            begin = self._next.get(step["topic"], 0)
            for number, found in enumerate(self.messages[begin:], begin):
                if matches(step, found):
                    self._next[step["topic"]] = number + 1
                    return
            assert time.monotonic() < deadline, f"{step} was not heard: {self._last(step)}"
            time.sleep(0.02)

    def never(self, step: Mapping[str, Any]) -> None:
        """Such a message was not among those since the last that was expected."""
        begin = self._next.get(step["topic"], 0)
        assert not any(matches(step, found) for found in self.messages[begin:]), step

    def _last(self, step: Mapping[str, Any]) -> list[Any]:
        return [body for kind, _, body in self.messages if kind == step["topic"]][-3:]


def matches(step: Mapping[str, Any], found: tuple[str, bool, dict[str, Any]]) -> bool:
    kind, retain, body = found
    if step["topic"] != kind or step.get("retain", retain) != retain:
        return False
    return within(step["body"], body)


def within(part: Any, whole: Any) -> bool:
    """Whether all that a part names is in the whole."""
    if isinstance(part, dict):
        return isinstance(whole, dict) and all(
            within(value, whole.get(key, False if value is False else None))
            for key, value in part.items()
        )
    return bool(part == whole)


def named(value: Any, digest: Callable[[str], str]) -> Any:
    """With digests in place of `$name`."""
    if isinstance(value, dict):
        return {key: named(each, digest) for key, each in value.items()}
    if isinstance(value, list):
        return [named(each, digest) for each in value]
    return digest(value[1:]) if isinstance(value, str) and value.startswith("$") else value


def files(side: str) -> list[Any]:
    found = sorted((FOLDER / side).glob("*.yaml"))
    assert found
    return [pytest.param(path, id=path.stem) for path in found]


# -- with a real agent


class WithAgent:
    """What the controller's side of a conversation does."""

    def __init__(self, site: EdgeSite, device: Device) -> None:
        self.site, self.device, self.heard = site, device, Heard()
        self._packages: dict[str, Made] = {}
        self._said: dict[str, bytes] = {}
        site.client.on_message = self._came

    def _came(self, _client: object, _data: object, message: mqtt.MQTTMessage) -> None:
        topic = topics.parse(message.topic)
        assert topic is not None
        self.heard.take(topic.kind, bytes(message.payload), message.retain)

    def package(self, name: str) -> Made:
        if name not in self._packages:
            self._packages[name] = edge_site.package(name)
        return self._packages[name]

    def digest(self, name: str) -> str:
        return self.package(name).digest

    def wish(self, step: Mapping[str, Any]) -> None:
        modules = {}
        if step["package"]:
            made = self.package(step["package"])
            modules["main"] = Module(
                package=made.digest, release=self._release(made), timeout_s=20.0,
                soak=msgspec.convert({"seconds": 1}, type=type(Module(package=made.digest).soak)),
            )  # fmt: skip
        sources: tuple[Source, ...] = (self.site.source.source,)
        changes = {"device": step["device"]} if "device" in step else {}
        desired = self.site.fleet.desired(
            step["generation"], modules=modules, sources=sources, **changes
        )
        key = SigningKey.generate() if "key" in step else self.site.fleet.keys.director
        self._say("desired", Director(key).sign(desired))

    def _release(self, made: Made) -> int:
        """Permits it once; the release of its permission."""
        known = self._said.get(made.digest)
        if known is None:
            self.site.source.add(made)
            draft = self.site.fleet.repository.draft_targets()
            length = len(made.blobs[made.digest])
            release = permit(draft, {made.digest: length}, name="iris").release
            self.site.fleet.publish(targets=sign_draft(draft, [self.site.fleet.keys.targets]))
            known = self._said[made.digest] = str(release).encode()
        return int(known)

    def raw(self, step: Mapping[str, Any]) -> None:
        self._say(step["topic"], step["text"].encode(), retain=False)

    def again(self, kind: str) -> None:
        self._say(kind, self._said[kind])

    def command(self, step: Mapping[str, Any]) -> None:
        made = Command(
            site=edge_site.SITE, device=edge_site.DEVICE, id=f"{step['key']}-{time.monotonic_ns()}",
            key=step["key"], deadline=time.time() + step.get("deadline_s", 60), verb=step["verb"],
            arguments=step.get("arguments", {}),
        )  # fmt: skip
        self._say("cmd/req", self.site.fleet.director.sign(made), retain=False)

    def _say(self, kind: Any, payload: bytes, *, retain: bool = True) -> None:
        self._said[kind] = payload
        topic = str(topics.topic(edge_site.SITE, edge_site.DEVICE, kind))
        sent = self.site.client.publish(topic, payload, 1, retain=retain and kind == "desired")
        sent.wait_for_publish(20)

    def expect(self, step: Mapping[str, Any]) -> None:
        self.heard.expect(step)

    def never(self, step: Mapping[str, Any]) -> None:
        self.heard.never(step)

    def broker(self, _how: str) -> None:
        """It is killed, and comes back with nothing that it knew."""
        broker = self.site.broker
        broker.kill()
        for path in (broker.folder / "database").iterdir():
            path.unlink()
        broker.start()
        controllers.eventually(self.site.client.is_connected)

    def stop(self, _: None) -> None:
        self.device.close()


@pytest.fixture
def edge(tmp_path: Path) -> Iterator[EdgeSite]:
    with EdgeSite(tmp_path).open() as site:
        yield site


@pytest.mark.parametrize("path", files("agent"))
def test_with_an_agent(path: Path, edge: EdgeSite, tmp_path: Path) -> None:
    steps = yaml.safe_load(path.read_text())["steps"]
    device = Device(edge.enrol(tmp_path / "device"))
    side = WithAgent(edge, device)
    device.begin()
    try:
        play(side, side.digest, steps)
    finally:
        if "stop" not in steps[-2]:
            device.close()


def play(side: Any, digest: Callable[[str], str], steps: list[dict[str, Any]]) -> None:
    for step in steps:
        [(verb, value)] = step.items()
        getattr(side, verb)(named(value, digest))


# -- with a real controller


class WithController:
    """What the device's side of a conversation does, and what people do and see."""

    def __init__(self, place: Site) -> None:
        self.place, self.heard = place, Heard()
        place.fleet.add_device("d0", "default")
        self.client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="d0")
        self.client.on_message = self._came
        self.client.connect("127.0.0.1", place.broker.port)
        self.client.subscribe("fleet/v1/default/d0/desired", 1)
        self.client.loop_start()

    def _came(self, _client: object, _data: object, message: mqtt.MQTTMessage) -> None:
        topic = topics.parse(message.topic)
        assert topic is not None
        self.heard.take(topic.kind, bytes(message.payload), message.retain)

    def digest(self, name: str) -> str:
        return digests.of_bytes(name.encode())

    def send(self, step: Mapping[str, Any]) -> None:
        topic = f"fleet/v1/default/d0/{step['topic']}"
        body = msgspec.json.encode({"v": 1, **step["message"]})
        self.client.publish(topic, body, 1, retain=True).wait_for_publish(20)

    def deploy(self, name: str) -> None:
        controllers.eventually(lambda: self.place.fleet.device("d0").online)
        self.place.deploy(name, plan=Plan(waves=("100%",), timeout_s=60.0))

    def expect(self, step: Mapping[str, Any]) -> None:
        self.heard.expect(step)

    def rollout(self, step: Mapping[str, Any]) -> None:
        def so() -> bool:
            found = self.place.fleet.rollout("iris")
            return (
                found.rollout.state == step["state"]
                and found.counts() == step["counts"]
                and step.get("note", "") in found.rollout.note
            )

        controllers.eventually(so)

    def device(self, step: Mapping[str, Any]) -> None:
        def so() -> bool:
            found = self.place.fleet.device("d0")
            return all(getattr(found, name) == value for name, value in step.items())

        controllers.eventually(so)

    def event(self, step: Mapping[str, Any]) -> None:
        controllers.eventually(
            lambda: [
                one
                for one in self.place.fleet.events()
                if (one.kind, one.subject) == (step["kind"], step["subject"])
                and step["text"] in one.text
            ]
        )

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


@pytest.mark.parametrize("path", files("controller"))
def test_with_a_controller(path: Path, tmp_path: Path) -> None:
    steps = yaml.safe_load(path.read_text())["steps"]
    with controllers.site(tmp_path) as place:
        controller = place.controller()
        assert controller.connected.wait(PATIENCE_S)
        side = WithController(place)
        try:
            play(side, side.digest, steps)
        finally:
            side.close()

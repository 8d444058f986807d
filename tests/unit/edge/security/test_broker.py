"""The configuration that is written, in a real Mosquitto; the last tests need it installed."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from paho.mqtt import client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from edge.protocol import topics
from edge.security import broker
from edge.security.authority import Authority, Revoked
from edge.security.broker import Broker
from edge.security.identity import authority_context, request_for
from scoring.errors import UsageError
from tests.support.fleethttps import private_pem

MOSQUITTO = shutil.which("mosquitto", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
WAIT_S = 10.0


@pytest.fixture
def sound(tmp_path: Path) -> Broker:
    return Broker(folder=tmp_path / "etc", data=tmp_path / "var")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
@pytest.mark.parametrize(
    ("user", "owner"), [("nobody", "nobody"), ("", "root"), ("gone-1", "root")]
)
def test_whom_the_broker_becomes_can_read_its_key(sound: Broker, user: str, owner: str) -> None:
    described = msgspec.structs.replace(sound, user=user)
    broker.write(described, authority=b"a", certificate=b"c", key=b"k", revoked=b"r")
    key = described.folder / broker.KEY
    assert [path.owner() for path in (key, described.data)] == [owner, owner]
    assert key.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "changes",
    [
        {"address": "::\nallow_anonymous true"},
        {"folder": Path("/tmp/a b")},
        {"data": Path("/tmp/a\nb")},
        {"user": "root\nlistener 1"},
        {"forget": "1d\npersistence false"},
        {"port": 0},
        {"port": 65536},
        {"queued_bytes": 0},
        {"controllers": 0},
        {"controllers": 100},
    ],
)
def test_nothing_that_is_given_adds_a_line(sound: Broker, changes: dict[str, Any]) -> None:
    import msgspec

    with pytest.raises(UsageError):
        broker.config(msgspec.structs.replace(sound, **changes))


def test_every_topic_has_its_rule() -> None:
    lines = broker.acl(2).splitlines()
    for kind in topics.KINDS:
        access = "write" if kind in topics.BY_DEVICE else "read"
        assert f"pattern {access} fleet/v1/+/%u/{kind}" in lines
    assert not any("#" in line for line in lines if not line.startswith("#"))
    assert [line for line in lines if line.startswith("user")] == [
        "user FIELDPOST-CONTROLLER-1",
        "user FIELDPOST-CONTROLLER-2",
    ]


def test_keys_are_for_their_owner(sound: Broker) -> None:
    written = broker.write(sound, authority=b"a", certificate=b"c", key=b"k", revoked=b"r")
    modes = {path.name: path.stat().st_mode & 0o777 for path in written}
    assert modes.pop("broker.key") == 0o600
    assert set(modes.values()) == {0o644}
    assert broker.write_revoked(sound.folder, b"newer").read_bytes() == b"newer"


class Client:
    """A client with a certificate of its own."""

    def __init__(self, name: str, context: Any, serial: int) -> None:
        self.serial = serial
        self.got: list[tuple[str, bytes]] = []
        self.ends: list[str] = []
        self.raw = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=name)
        self.raw.tls_set_context(context)
        self.raw.on_message = lambda _c, _u, message: self.got.append(
            (message.topic, bytes(message.payload))
        )
        self.raw.on_disconnect = lambda _c, _u, _f, reason, _p: self.ends.append(str(reason))

    def publish(self, topic: str, payload: bytes = b"x", *, retain: bool = False) -> None:
        self.raw.publish(topic, payload, 1, retain).wait_for_publish(WAIT_S)

    def subscribe(self, topic: str) -> None:
        done: list[int] = []
        self.raw.on_subscribe = lambda *_: done.append(1)
        self.raw.subscribe(topic, 1)
        wait(lambda: bool(done))


def wait(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not true():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.01)


class Fixture:
    """A running broker and those who come to it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.now = folder, time.time()
        self.authority = Authority.create(self.now)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.broker = Broker(
            folder=folder / "etc",
            data=folder / "var",
            port=self.port,
            address="127.0.0.1",
            user="root",
        )
        self.clients: list[Client] = []
        key = ec.generate_private_key(ec.SECP256R1())
        made = self.authority.issue_server(key.public_key(), ["localhost"], self.now)
        broker.write(
            self.broker,
            authority=self.authority.pem,
            certificate=made.public_bytes(serialization.Encoding.PEM),
            key=private_pem(key),
            revoked=self.authority.revocation_list([], self.now),
        )

    def start(self) -> None:
        assert MOSQUITTO
        self.log = (self.folder / "log").open("wb")
        self.process = subprocess.Popen(
            [MOSQUITTO, "-c", str(self.broker.folder / broker.CONFIG)], stderr=self.log
        )
        wait(self.answers)

    def answers(self) -> bool:
        assert self.process.poll() is None, (self.folder / "log").read_text()
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
        except OSError:
            return False
        return True

    def stop(self) -> None:
        for client in self.clients:
            client.raw.disconnect()
            client.raw.loop_stop()
        self.process.terminate()
        self.process.wait(WAIT_S)
        self.log.close()

    def client(
        self,
        name: str,
        *,
        controller: int = 0,
        claims: str = "",
        authority: Authority | None = None,
    ) -> Client:
        key, signer = ec.generate_private_key(ec.SECP256R1()), authority or self.authority
        if controller:
            made = signer.issue_controller(key.public_key(), controller, [], self.now)
        else:
            made = signer.issue_device(request_for(key), site="hall", device=name, now=self.now)
        file = self.folder / f"{made.serial_number}.pem"
        file.write_bytes(private_pem(key) + made.public_bytes(serialization.Encoding.PEM))
        context = authority_context(self.authority.pem.decode())
        context.load_cert_chain(file)
        return Client(claims or name, context, made.serial_number)

    def connected(self, name: str, *, controller: int = 0, claims: str = "") -> Client:
        client = self.client(name, controller=controller, claims=claims)
        self.clients.append(client)
        client.raw.connect("localhost", self.port)
        client.raw.loop_start()
        wait(client.raw.is_connected)
        return client

    def refuses(self, client: Client) -> bool:
        """Whether the broker lets a client go without an answer."""
        try:
            client.raw.connect("localhost", self.port)
            for _ in range(100):
                if client.raw.loop(0.05) != mqtt.MQTT_ERR_SUCCESS:
                    return True
                if client.raw.is_connected():
                    return False
        except OSError:
            return True
        return False


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Fixture]:
    if MOSQUITTO is None:
        pytest.skip("mosquitto is not installed")
    made = Fixture(tmp_path)
    made.start()
    yield made
    made.stop()


def test_devices_say_their_own_and_hear_their_own(running: Fixture) -> None:
    controller = running.connected("controller", controller=1)
    camera, rogue = running.connected("camera"), running.connected("rogue")
    for filter_ in topics.for_controller(shared="ingest"):
        controller.subscribe(filter_)
    for filter_ in topics.for_device("hall", "camera"):
        camera.subscribe(filter_)
    for filter_ in ("#", "fleet/v1/hall/camera/#", "$share/x/fleet/v1/+/+/desired"):
        rogue.subscribe(filter_)
    for kind in topics.KINDS:
        rogue.publish(f"fleet/v1/hall/camera/{kind}", b"forged")
        camera.publish(f"fleet/v1/hall/camera/{kind}", b"own")
    rogue.publish("fleet/v1/hall/rogue/desired", b"forged")
    rogue.publish("anything", b"forged")
    wait(lambda: len(controller.got) >= len(topics.BY_DEVICE))
    assert {payload for _, payload in controller.got} == {b"own"}
    assert {topics.parse(topic).kind for topic, _ in controller.got if topics.parse(topic)} == (  # type: ignore[union-attr]
        topics.BY_DEVICE
    )
    for kind in topics.BY_CONTROLLER:
        controller.publish(f"fleet/v1/hall/camera/{kind}", b"wish")
    wait(lambda: len(camera.got) >= len(topics.BY_CONTROLLER))
    assert {payload for _, payload in camera.got} == {b"wish"}
    assert rogue.got == []


def test_another_clients_id_is_not_taken_over(running: Fixture) -> None:
    camera = running.connected("camera")
    running.connected("rogue", claims="camera")
    camera.publish("fleet/v1/hall/camera/reported")
    assert camera.ends == []


def test_large_packets_end_their_sender_alone(running: Fixture) -> None:
    controller = running.connected("controller", controller=1)
    controller.subscribe("fleet/v1/+/+/reported")
    camera, door = running.connected("camera"), running.connected("door")
    camera.publish("fleet/v1/hall/camera/reported", b"x" * 65536)
    wait(lambda: len(controller.got) == 1)
    door.raw.publish("fleet/v1/hall/door/reported", b"x" * 70_000, 1)
    wait(lambda: bool(door.ends))
    assert camera.ends == controller.ends == []


def test_strangers_and_revoked_devices_are_out(running: Fixture) -> None:
    device = running.client("camera")
    assert not running.refuses(device)
    device.raw.disconnect()
    assert running.refuses(running.client("camera", authority=Authority.create(running.now)))
    nobody = Client("camera", authority_context(running.authority.pem.decode()), 0)
    assert running.refuses(nobody)
    crl = running.authority.revocation_list([Revoked(device.serial, running.now)], running.now)
    broker.write_revoked(running.broker.folder, crl)
    running.process.send_signal(signal.SIGHUP)
    wait(lambda: running.refuses(device))
    other = running.client("door")
    assert not running.refuses(other)
    other.raw.disconnect()


def test_wishes_outlive_the_broker(running: Fixture) -> None:
    controller = running.connected("controller", controller=2)
    controller.publish("fleet/v1/hall/camera/desired", b"wish", retain=True)
    running.stop()
    running.clients.clear()
    running.start()
    camera = running.connected("camera")
    camera.subscribe("fleet/v1/hall/camera/desired")
    wait(lambda: camera.got == [("fleet/v1/hall/camera/desired", b"wish")])

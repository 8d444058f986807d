"""The demo's brokers: which is chosen, who is let in, and that they end."""

from __future__ import annotations

import os
import socket
from importlib import util
from pathlib import Path

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from edge.controller.entities import Device
from edge.controller.waves import members
from edge.demo import brokers, story
from edge.demo.brokers import Kind
from edge.demo.processes import Child
from edge.security.fleet import FleetSecurity
from scoring.errors import DeploymentFailedError, MissingDependencyError
from serve.registry import location
from serve.registry.database import Database
from tests.support.controllers import eventually


@pytest.fixture
def security(tmp_path: Path) -> FleetSecurity:
    (tmp_path / "workspace").mkdir()
    database = Database(location.resolve(str(tmp_path / "workspace")))
    made = FleetSecurity(tmp_path / "keys", database)
    made.init(tmp_path / "offline", root_keys=1, threshold=1)
    return made


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def refused(port: int, user: str = "", password: str = "") -> bool:
    """Whether a stranger is kept out."""
    codes: list[bool] = []
    client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="stranger")
    client.on_connect = lambda _c, _d, _f, code, _m: codes.append(code.is_failure)
    client.on_disconnect = lambda *_: codes.append(True)
    if user:
        client.username_pw_set(user, password)
    client.connect("127.0.0.1", port)
    client.loop_start()
    eventually(lambda: codes)
    client.loop_stop()
    client.disconnect()
    return codes[0]


@pytest.mark.parametrize("kind", ["mosquitto", "amqtt"])
def test_strangers_are_kept_out_and_it_ends(
    kind: Kind, security: FleetSecurity, tmp_path: Path
) -> None:
    if kind == "mosquitto" and brokers.mosquitto() is None:
        pytest.skip("mosquitto is not installed")
    if kind == "amqtt" and util.find_spec("amqtt") is None:
        pytest.skip("amqtt is not installed")
    with brokers.running(kind, tmp_path / "broker", security, "hall") as found:
        assert is_alive(found.pid)
        assert refused(found.controller.port)
        assert refused(found.controller.port, "device", "guessed")
        line = Path(f"/proc/{found.pid}/cmdline").read_bytes().decode()
        for secret in (found.devices.password, found.controller.password):
            assert not secret or secret not in line + repr(found)
    assert not is_alive(found.pid)


def test_a_stranger_may_not_speak_for_a_device(security: FleetSecurity, tmp_path: Path) -> None:
    if util.find_spec("amqtt") is None:
        pytest.skip("amqtt is not installed")
    heard: list[str] = []
    with (
        brokers.running("amqtt", tmp_path / "broker", security, "hall") as found,
        _client(found, "controller") as controller,
        _client(found, "device") as device,
    ):
        granted: list[int] = []
        controller.on_message = lambda _c, _d, message: heard.append(message.topic)
        controller.on_subscribe = lambda *_: granted.append(1)
        controller.subscribe([(f"fleet/v1/+/+/{kind}", 1) for kind in ("reported", "desired")])
        eventually(lambda: granted)
        device.publish("fleet/v1/hall/camera/desired", b"x", 1)  # not a device's to say
        device.publish("fleet/v1/hall/camera/reported", b"x", 1)
        eventually(lambda: heard)
    assert heard == ["fleet/v1/hall/camera/reported"]


def _client(found: brokers.Running, user: str) -> _Connected:
    password = found.controller.password if user == "controller" else found.devices.password
    return _Connected(found.controller.port, user, password)


class _Connected:
    """A client until the end of a block."""

    def __init__(self, port: int, user: str, password: str) -> None:
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=user)
        self._client.username_pw_set(user, password)
        self._client.connect("127.0.0.1", port)

    def __enter__(self) -> mqtt.Client:
        self._client.loop_start()
        eventually(self._client.is_connected)
        return self._client

    def __exit__(self, *_: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()


def test_a_port_that_somebody_took_is_left_to_him(
    security: FleetSecurity, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if brokers.mosquitto() is None:
        pytest.skip("mosquitto is not installed")
    free = brokers._free_port
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ports = [taken.getsockname()[1]]
        monkeypatch.setattr(brokers, "_free_port", lambda: ports.pop() if ports else free())
        with brokers.running("mosquitto", tmp_path / "broker", security, "hall") as found:
            assert found.controller.port != taken.getsockname()[1]


def test_mosquitto_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(brokers, "mosquitto", lambda: "/usr/sbin/mosquitto")
    assert brokers.choose() == "mosquitto"
    monkeypatch.setattr(brokers, "mosquitto", lambda: None)
    monkeypatch.setattr("edge.demo.brokers.util.find_spec", lambda _: object())
    assert brokers.choose() == "amqtt"
    monkeypatch.setattr("edge.demo.brokers.util.find_spec", lambda _: None)
    with pytest.raises(MissingDependencyError, match="no MQTT broker") as caught:
        brokers.choose()
    assert "apt-get install mosquitto" in caught.value.hint


@pytest.mark.parametrize("kind", ["mosquitto", "amqtt"])
def test_one_that_is_not_there_is_told(
    kind: Kind, security: FleetSecurity, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(brokers, "mosquitto", lambda: None)
    monkeypatch.setattr("edge.demo.brokers.util.find_spec", lambda _: None)
    with (
        pytest.raises(MissingDependencyError, match="(?i)" + kind),
        brokers.running(kind, tmp_path / "broker", security, "hall"),
    ):
        pass


def test_a_child_that_ends_at_once_says_why(tmp_path: Path) -> None:
    with (
        Child(["/bin/sh", "-c", "echo out of order; exit 3"], tmp_path / "log") as child,
        pytest.raises(DeploymentFailedError, match="status 3") as caught,
    ):
        eventually(child.require_alive)  # it says nothing until it raises
    assert "out of order" in caught.value.detail
    with pytest.raises(DeploymentFailedError, match="cannot be started"):
        Child(["/nonexistent"], tmp_path / "log")


def test_a_child_that_does_not_go_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.demo.processes._END_S", 0.2)
    ready = tmp_path / "ready"
    script = f"trap '' TERM; touch {ready}; while true; do sleep 0.1; done"
    with Child(["/bin/sh", "-c", script], tmp_path / "log") as child:
        eventually(ready.exists)
    assert not is_alive(child.pid)


def test_the_broken_boards_are_in_the_wave_in_the_middle() -> None:
    devices = [Device(name=name, site=story.SITE, online=True) for name in story.BOARDS]
    found = members(f"{story.DEPLOYMENT}:2", story._PLAN, devices)
    waves = {one.device: one.wave for one in found}
    assert {waves[name] for name in story.BROKEN} == {1}
    assert sorted(waves.values()) == [0, 1, 1, 1, 2]

"""A fleet as its operator sets it up: keys, a broker with TLS, a controller, a device."""

from __future__ import annotations

import hashlib
import json
import os
import queue
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import HTTPSHandler, Request, build_opener

import pytest
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion

from edge.protocol import messages
from edge.protocol.messages import ModuleState, Reported, Status
from edge.protocol.topics import topic
from edge.security import joining
from edge.security.identity import Identity
from edge.security.trust import DeviceTrust
from serve.registry import Registry
from serve.registry.records import Blob
from tests.support import brokers
from tests.support.smallpackages import put_package

ROOT = Path(__file__).parents[2]
RUN = "import sys; from edge.cli import groups; getattr(groups, sys.argv.pop(1))()"


class Operator:
    """Someone at a command line."""

    def __init__(self, folder: Path) -> None:
        self.workspace = folder / "workspace"
        self.environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith("FIELDPOST_")},
            "FIELDPOST_WORKSPACE": str(self.workspace),
            "PYTHONPATH": str(ROOT),
        }

    def __call__(self, *words: object) -> Any:
        done = subprocess.run(
            [sys.executable, "-c", RUN, *map(str, words), "--json"],
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{done.stdout}{done.stderr}"
        return json.loads(done.stdout)

    @contextmanager
    def controller(self, *words: object) -> Iterator[dict[str, Any]]:
        process = subprocess.Popen(
            [sys.executable, "-c", RUN, "fleet", "controller", *map(str, words), "--json"],
            env=self.environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        text = ""
        while not text.endswith("}\n"):
            line = process.stdout.readline()
            assert line, "the controller has ended"
            text += line
        try:
            yield json.loads(text)
        finally:
            process.terminate()
            assert process.wait(30) == 0
            process.stdout.close()


def _register(workspace: Path, content: bytes) -> str:
    with Registry(str(workspace)) as registry:
        digest = put_package(registry.blobs, model=content)
        manifest = json.loads(registry.blobs.read_bytes(digest))
        parts = [manifest["config"], *manifest["layers"]]
        registry.packages.register(
            digest,
            [Blob(digest=one["digest"], size=one["size"]) for one in parts],
            model=None,
            model_version=None,
            environment=None,
            platform="linux/amd64",
        )
    return digest


class Device:
    """One that joined, and believes what it may."""

    def __init__(self, own: Identity, folder: Path) -> None:
        self.own = own
        self.came: queue.Queue[bytes] = queue.Queue()
        root = (own.folder / "root.json").read_bytes()
        folder.mkdir()
        self.trust = DeviceTrust(folder, site=own.site, device=own.device, root=root)
        self.controller = joining.Controller(own.settings["controller"], own.tls())
        place = urlsplit(own.settings["broker"])
        self.client = Client(CallbackAPIVersion.VERSION2, client_id=own.device)
        self.client.tls_set_context(own.tls())
        self.client.on_connect = self._connected
        self.client.on_message = lambda *what: self.came.put(bytes(what[2].payload))
        self.client.connect(place.hostname or "", place.port or 0)
        self.client.loop_start()

    def _connected(self, client: Any, *_: Any) -> None:
        client.subscribe(str(topic(self.own.site, self.own.device, "desired")), 1)
        self.say("status", Status(device=self.own.device, online=True, boot=1))

    def say(self, kind: Any, message: messages.Message) -> None:
        where = str(topic(self.own.site, self.own.device, kind))
        self.client.publish(where, messages.encode(message), 1, retain=True)

    def get(self, url: str, tls: ssl.SSLContext | None = None, **headers: str) -> tuple[int, bytes]:
        opener = build_opener(HTTPSHandler(context=tls or self.own.tls()))
        try:
            with opener.open(Request(url, headers=headers), timeout=20) as answer:
                return answer.status, answer.read()
        except HTTPError as error:
            with error:
                return error.code, b""

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


@pytest.fixture
def operator(tmp_path: Path) -> Operator:
    brokers.require()
    return Operator(tmp_path)


def test_a_fleet_from_its_keys_to_a_device_that_runs_a_package(
    operator: Operator, tmp_path: Path
) -> None:
    digest = _register(operator.workspace, b"one")
    stranger = _register(operator.workspace, b"of no deployment")
    offline = tmp_path / "offline"
    operator("fleet", "trust", "init", "--keys", offline)
    key = offline / "targets.pem"
    operator("fleet", "trust", "sign", digest, "--name", "iris", "--key", key)
    etc, port = tmp_path / "etc", brokers.free_port()
    operator("fleet", "broker-config", etc, "--host", "localhost", "--port", port, "--user", "root")
    broker = brokers.Mosquitto(tmp_path / "broker", config=etc / "mosquitto.conf", port=port)
    broker.start()
    address = f"mqtts://localhost:{port}"
    try:
        # Whichever port it gets, and no name besides where it listens: that is what devices know.
        with operator.controller("--broker", address, "--listen", "127.0.0.1:0") as said:
            _play(operator, said["url"], digest, stranger, tmp_path)
    finally:
        broker.kill()


def _play(operator: Operator, url: str, digest: str, stranger: str, tmp_path: Path) -> None:
    token = operator("device", "claim", "cam", "--site", "hall")["token"]
    device = Device(joining.join(url, token, tmp_path / "device"), tmp_path / "trust")
    try:
        assert device.own.settings["controller"] == url
        (listed,) = operator("device", "list", "--where", "site = 'hall'")
        assert listed["name"] == "cam"
        plan = operator("fleet", "deploy", "iris", "--package", digest, "--where", "*", "--dry-run")
        assert plan["waves"] == [["cam"]]
        assert operator("rollout", "list") == []
        operator("fleet", "deploy", "iris", "--package", digest, "--where", "*")

        desired = device.trust.verify(
            device.came.get(timeout=30), time.time(), device.controller.fetch
        )
        assert desired.modules["main"].package == digest
        (source,) = desired.sources
        _fetch(device, source.url, digest, stranger)

        state = ModuleState(phase="good", wanted=digest, package=digest, healthy=True)
        report = Reported(
            device="cam", boot=1, seq=1, generation=1, at=time.time(), modules={"main": state}
        )
        device.say("reported", report)
        done = operator("rollout", "show", "iris", "--watch")
        assert (done["state"], done["counts"]) == ("complete", {"good": 1})

        operator("device", "revoke", "cam")
        deadline = time.monotonic() + 30
        while device.get(f"{source.url}/blobs/{digest}")[0] != 403:
            assert time.monotonic() < deadline
            time.sleep(0.5)
    finally:
        device.close()


def _fetch(device: Device, url: str, digest: str, stranger: str) -> None:
    """What a device may fetch, and how."""
    status, manifest = device.get(f"{url}/blobs/{digest}")
    assert (status, f"sha256:{hashlib.sha256(manifest).hexdigest()}") == (200, digest)
    layer = json.loads(manifest)["layers"][-1]["digest"]
    whole = device.get(f"{url}/blobs/{layer}")[1]
    first = device.get(f"{url}/blobs/{layer}", Range="bytes=0-9")
    rest = device.get(f"{url}/blobs/{layer}", Range="bytes=10-")
    assert (first[0], rest[0], first[1] + rest[1]) == (206, 206, whole)
    assert device.get(f"{url}/blobs/{layer}", Range=f"bytes={len(whole)}-")[0] == 416
    for path in (stranger, "sha256:" + "0" * 64, "../../fieldpost.db", "sha256:zz"):
        assert device.get(f"{url}/blobs/{path}")[0] == 404
    nobody = ssl.create_default_context(cafile=str(device.own.authority_file))
    assert device.get(f"{url}/blobs/{digest}", nobody)[0] == 403

"""A controller's side for one real agent: enrolment, signed metadata, blobs, a TLS broker."""

from __future__ import annotations

import contextlib
import gzip
import http.client
import json
import platform
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from paho.mqtt.enums import CallbackAPIVersion

from edge.agent.config import Config
from edge.agent.device import IDENTITY
from edge.protocol import messages, topics
from edge.protocol.messages import (
    Command,
    CommandResult,
    Module,
    ModuleState,
    Reported,
    Soak,
    Source,
    Status,
)
from edge.security import joining
from edge.security.authority import Authority
from edge.security.drafts import permit, sign_draft
from edge.security.endpoint import Endpoint
from edge.security.enrol import Enrolment
from serve.registry import location
from serve.registry.database import Database
from tests.support import brokers, fleethttps
from tests.support.blob_source import BlobSource, Made, MadeLayer, digest_of, tar
from tests.support.fleettrust import Clock, Fleet

SITE, DEVICE = "hall", "camera"
WORKER = Path(__file__).with_name("tiny_worker.py")

# The worker of tests wants a gate, and its behaviour beside it.
_BOOT = b"""
import json, os, runpy, sys, tempfile
gate, write = os.pipe()
os.close(write)
os.environ["FIELDPOST_GATE_FD"] = str(gate)
root = sys.argv[1]
sys.argv[1] = root + "/model"
if os.path.exists(root + "/runtime/stamp"):
    with open(root + "/runtime/stamp") as stamp, open(root + "/model/behaviour.json") as told:
        if stamp.read() != json.load(told)["answer"]:
            sys.argv[1] = tempfile.mkdtemp()
            with open(sys.argv[1] + "/behaviour.json", "w") as mixed:
                json.dump({"answer": "mixture"}, mixed)
runpy.run_path(root + "/runtime/worker.py", run_name="__main__")
"""


def package(answer: str, **behaviour: object) -> Made:
    """A package whose worker is the small one of tests."""
    return package_of(_files(answer, behaviour))


def stamped(answer: str) -> Made:
    """Like `package`, of which two layers differ: it answers `mixture` if they do not belong."""
    files = _files(answer, {})
    files["runtime"]["stamp"] = answer.encode()
    return package_of(files)


def _files(answer: str, behaviour: Mapping[str, object]) -> dict[str, dict[str, bytes]]:
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    return {
        "env": {"environment.json": json.dumps({"python": python}).encode()},
        "runtime": {"scoring/boot.py": _BOOT, "worker.py": WORKER.read_bytes()},
        "model": {"behaviour.json": json.dumps({"answer": answer, **behaviour}).encode()},
    }


def package_of(files: dict[str, dict[str, bytes]]) -> Made:
    """A package of layers: their names to the paths and contents of their files."""
    return package_of_archives(
        {
            name: tar({f"opt/fieldpost/{name}/{path}": data for path, data in content.items()})
            for name, content in files.items()
        }
    )


def package_of_archives(archives: Mapping[str, bytes], sizes: Mapping[str, int] = {}) -> Made:
    """A package of layers: their names to archives, and to how large the manifest says they are."""
    layers = [
        MadeLayer(name, raw, gzip.compress(raw, 1, mtime=0)) for name, raw in archives.items()
    ]
    machine = "arm64" if platform.machine() == "aarch64" else "amd64"
    config = json.dumps(
        {
            "architecture": machine,
            "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]},
        }
    ).encode()
    manifest = _manifest(config, layers, sizes)
    blobs = {digest_of(data): data for data in (config, manifest)}
    blobs |= {layer.digest: layer.packed for layer in layers}
    return Made(digest_of(manifest), blobs, tuple(layers))


def _manifest(config: bytes, layers: list[MadeLayer], sizes: Mapping[str, int]) -> bytes:
    described = [
        {
            "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
            "digest": layer.digest,
            "size": len(layer.packed),
            "annotations": {
                "dev.fieldpost.layer": layer.name,
                "dev.fieldpost.unpacked-size": str(sizes.get(layer.name, len(layer.raw))),
            },
        }
        for layer in layers
    ]
    kind = "application/vnd.oci.image"
    return json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": f"{kind}.manifest.v1+json",
            "config": {
                "mediaType": f"{kind}.config.v1+json",
                "digest": digest_of(config),
                "size": len(config),
            },
            "layers": described,
        }
    ).encode()


class EdgeSite:
    """Everything that a device talks to."""

    def __init__(self, folder: Path) -> None:
        now = time.time()
        self.folder, self.clock = folder, Clock(now)
        self.fleet = Fleet(folder / "metadata", clock=self.clock)
        self.authority = Authority.create(now)
        (folder / "workspace").mkdir()
        database = Database(location.resolve(str(folder / "workspace")))
        repository, director = self.fleet.repository, self.fleet.director
        self.enrolment = Enrolment(database, self.authority, repository, clock=self.clock)
        self.endpoint = Endpoint(self.enrolment, repository, director, clock=self.clock)
        self.source = BlobSource()
        self.generation = 0
        self.releases = 0
        self.client: mqtt.Client
        self.broker: brokers.Mosquitto
        self._url = ""
        self._news = threading.Condition()
        self.reports: list[Reported] = []
        self.statuses: list[Status] = []
        self.results: list[CommandResult] = []

    @contextlib.contextmanager
    def open(self) -> Iterator[EdgeSite]:
        """Broker, controller's HTTPS, blobs, and a client that listens, until the end."""
        with (
            self.source,
            fleethttps.serving(
                self.endpoint, self.authority, self.folder, now=self.clock.now
            ) as self._url,
            brokers.running(
                self.folder / "broker", certificates=self._certificates(), persistent=True
            ) as self.broker,
        ):
            self.client = self._client()
            try:
                yield self
            finally:
                self.client.loop_stop()
                self.client.disconnect()

    def _certificates(self) -> tuple[Path, Path, Path]:
        authority, server = self.folder / "authority.pem", self.folder / "broker.pem"
        authority.write_bytes(self.authority.pem)
        key = ec.generate_private_key(ec.SECP256R1())
        made = self.authority.issue_server(key.public_key(), ["127.0.0.1"], self.clock.now)
        server.write_bytes(fleethttps.private_pem(key) + made.public_bytes(Encoding.PEM))
        return authority, server, server

    def _client(self) -> mqtt.Client:
        key = ec.generate_private_key(ec.SECP256R1())
        made = self.authority.issue_controller(key.public_key(), 1, ["localhost"], self.clock.now)
        own = self.folder / "controller.pem"
        own.write_bytes(fleethttps.private_pem(key) + made.public_bytes(Encoding.PEM))
        context = ssl.create_default_context(cadata=self.authority.pem.decode())
        context.load_cert_chain(own)
        client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="test-controller")
        client.tls_set_context(context)
        client.reconnect_delay_set(1, 1)
        client.on_message = self._on_message
        client.on_connect = lambda c, *_: c.subscribe([("fleet/v1/#", 1)])
        client.connect("127.0.0.1", self.broker.port)
        client.loop_start()
        return client

    def _on_message(self, _client: object, _data: object, message: mqtt.MQTTMessage) -> None:
        topic = topics.parse(message.topic)
        kinds: dict[str, tuple[Any, list[Any]]] = {
            "reported": (Reported, self.reports),
            "status": (Status, self.statuses),
            "cmd/res": (CommandResult, self.results),
        }
        if topic is not None and topic.kind in kinds:
            kind, place = kinds[topic.kind]
            with self._news:
                place.append(messages.decode(bytes(message.payload), kind))
                self._news.notify_all()

    def wait(self, true: Callable[[], bool], seconds: float = 30) -> None:
        """Until a condition over what was heard holds."""
        with self._news:
            assert self._news.wait_for(true, seconds), self.reports[-1:]

    def wait_for(self, phase: str, made: Made | None = None, seconds: float = 30) -> ModuleState:
        """Until the module `main` is reported so, healthy, at the present generation."""

        def so() -> bool:
            if not self.reports or self.reports[-1].generation != self.generation:
                return False
            main = self.reports[-1].modules.get("main")
            return (
                main is not None
                and main.phase == phase
                and (made is None or (main.package == made.digest and main.healthy))
            )

        self.wait(so, seconds)
        return self.reports[-1].modules["main"]

    def enrol(self, state: Path) -> Config:
        """Enrols the device; its settings."""
        token = self.enrolment.claim(SITE, DEVICE)
        joining.join(self._url, token, state / IDENTITY)
        return Config(
            state=str(state), broker=self.broker.url, controller=self._url, keepalive_s=5,
            drain_s=5,
        )  # fmt: skip

    def wish(self, made: Made | None, *, mirrors: Sequence[Source] = (), **changes: Any) -> None:
        """Permits a package, and wishes for it; from mirrors first."""
        self.generation += 1
        modules = {}
        if made is not None:
            self.source.add(made)
            draft = self.fleet.repository.draft_targets()
            length = len(made.blobs[made.digest])
            release = permit(draft, {made.digest: length}, name="iris").release
            self.fleet.publish(targets=sign_draft(draft, [self.fleet.keys.targets]))
            values: dict[str, Any] = {"soak": Soak(seconds=1), "timeout_s": 20.0} | changes
            modules = {"main": Module(package=made.digest, release=release, **values)}
        sources = (*mirrors, self.source.source)
        self.publish(self.fleet.wish(self.generation, modules=modules, sources=sources))

    def publish(self, envelope: bytes) -> None:
        """Says a signed wish, retained."""
        topic = str(topics.topic(SITE, DEVICE, "desired"))
        self.client.publish(topic, envelope, 1, retain=True).wait_for_publish(10)

    def command(self, verb: str, key: str, **arguments: Any) -> None:
        """Sends a signed command."""
        made = Command(
            site=SITE, device=DEVICE, id=f"{key}-{time.monotonic_ns()}", key=key,
            deadline=time.time() + 60, verb=verb, arguments=arguments,
        )  # fmt: skip
        topic = str(topics.topic(SITE, DEVICE, "cmd/req"))
        self.client.publish(topic, self.fleet.director.sign(made), 1).wait_for_publish(10)


def ask(port: int, path: str = "/") -> str:
    """What the module at a port answers."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    with contextlib.closing(connection):
        connection.request("GET", path, headers={"Connection": "close"})
        return connection.getresponse().read().decode()

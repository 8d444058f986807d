"""Fleets by the command line alone: keys, broker, controllers and agents as an operator has them.

Every part is a process of its own. Packages hold the small worker of tests, so that a version is
up within half a second.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from serve.registry import Registry
from serve.registry.records import Blob
from tests.support import brokers
from tests.support.blob_source import Made
from tests.support.edge_site import package

ROOT = Path(__file__).parents[2]
PATIENCE_S = 60.0
_RUN = "import sys; from edge.cli import groups; getattr(groups, sys.argv.pop(1))()"
_AGENT = (sys.executable, "-m", "edge.agent.main")


def eventually(condition: Callable[[], Any], within_s: float = PATIENCE_S) -> Any:
    """What the condition says once that is true; errors of connections are no answer yet."""
    deadline = time.monotonic() + within_s
    while True:
        with contextlib.suppress(OSError):
            found = condition()
            if found:
                return found
        assert time.monotonic() < deadline, "it never came to be"
        time.sleep(0.1)


def environment(folder: Path, **more: str) -> dict[str, str]:
    """Of the processes of one fleet: with byte code, as installed programs have it."""
    left_out = ("FIELDPOST_", "PYTHONDONTWRITEBYTECODE")
    kept = {name: text for name, text in os.environ.items() if not name.startswith(left_out)}
    cache = {"PYTHONPYCACHEPREFIX": str(folder / "pycache")}
    return {**kept, **cache, "PYTHONPATH": str(ROOT), "PYTHONFAULTHANDLER": "1", **more}


@dataclass
class Process:
    """One that was started here."""

    popen: subprocess.Popen[bytes]
    log: Path

    def kill(self) -> None:
        """SIGKILL, and gone."""
        self.popen.kill()
        self.popen.wait(20)

    def end(self) -> None:
        """In peace where it goes by itself, else not."""
        self.popen.terminate()
        try:
            self.popen.wait(20)
        except subprocess.TimeoutExpired:
            self.kill()

    @property
    def text(self) -> str:
        """What it has logged."""
        return self.log.read_text(errors="replace")


@dataclass
class AgentFolder:
    """One device: its folder, and how processes are started where it is.

    Attributes:
        name: Of the device.
        state: The agent's folder.
        wrap: Puts a command into the device's surroundings.
        env: Of its processes.
    """

    name: str
    state: Path
    wrap: Callable[..., Sequence[str | Path]]
    env: dict[str, str]
    process: Process | None = None

    def join(self, url: str, token: str) -> None:
        """Enrols it."""
        words = self.wrap(*_AGENT, "join", "--url", url, "--token-file", "-", "--state", self.state)
        subprocess.run(
            words, input=token, text=True, env=self.env, check=True, capture_output=True, timeout=60
        )

    def settings(self, **lines: object) -> None:
        """Writes its `agent.toml`."""
        values = {"keepalive_s": 5, "drain_s": 2.0, "host": "0.0.0.0"} | lines
        text = "".join(f"{name} = {json.dumps(value)}\n" for name, value in values.items())
        (self.state / "agent.toml").write_text(text)

    def start(self, **more: str) -> Process:
        """Starts its agent."""
        log = self.state / "agent.log"
        words = self.wrap(*_AGENT, "run", "--state", self.state)
        with log.open("ab") as out:
            popen = subprocess.Popen(words, stdout=out, stderr=out, env={**self.env, **more})
        self.process = Process(popen, log)
        return self.process

    def end(self) -> None:
        """Ends its agent, where it runs."""
        if self.process is not None and self.process.popen.poll() is None:
            self.process.end()

    def journal(self) -> dict[str, Any]:
        """What its journal says."""
        done = subprocess.run(
            [*_AGENT, "status", "--state", self.state],
            env=self.env,
            check=True,
            capture_output=True,
        )
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def port(self) -> int:
        """Where `main` answers, as the agent gave it."""
        import sqlite3

        journal = (self.state / "journal.db").absolute().as_uri()
        with contextlib.closing(sqlite3.connect(f"{journal}?mode=ro", uri=True)) as db:
            row = db.execute("SELECT value FROM rows WHERE key = 'note.port.main'").fetchone()
        return int(row[0]) if row else 0


@dataclass
class Operator:
    """Someone at a command line, with a workspace.

    Attributes:
        folder: For everything.
        workspace: A folder or a URL.
        address: Where broker and controller are reached.
    """

    folder: Path
    workspace: str = ""
    address: str = "127.0.0.1"
    devices: list[AgentFolder] = field(default_factory=list)
    controllers: list[Process] = field(default_factory=list)
    url: str = ""
    broker_url: str = ""
    password: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        self.workspace = self.workspace or str(self.folder / "workspace")
        self.env = environment(self.folder, FIELDPOST_WORKSPACE=self.workspace)
        self.keys = self.folder / "keys"
        self.offline = self.folder / "offline"

    def __call__(self, *words: object) -> Any:
        """What a command says as JSON."""
        done = subprocess.run(
            [sys.executable, "-c", _RUN, *map(str, words), "--json"],
            env=self.env,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
        return json.loads(done.stdout)

    def trust(self, *words: object) -> Any:
        """A command that uses the controller's keys."""
        return self(*words, "--folder", self.keys)

    def begin(self) -> None:
        """Makes the fleet's keys."""
        self.trust("fleet", "trust", "init", "--keys", self.offline)

    def mosquitto(self) -> brokers.Mosquitto:
        """A broker with certificates and access lists, as `fleet broker-config` writes them."""
        brokers.require()
        etc, port = self.folder / "etc", brokers.free_port()
        words = ("--host", self.address, "--port", port, "--user", "root")
        self.trust("fleet", "broker-config", etc, *words)
        made = brokers.Mosquitto(self.folder / "broker", config=etc / "mosquitto.conf", port=port)
        made.start()
        self.broker_url = f"mqtts://{self.address}:{port}"
        return made

    def controller(self, *words: object, listen: int = 0) -> Process:
        """Starts a controller, and waits until devices reach it."""
        listen = listen or brokers.free_port()
        log = self.folder / f"controller-{len(self.controllers)}.log"
        command = [
            *(sys.executable, "-c", _RUN, "fleet", "controller", "--broker", self.broker_url),
            *("--listen", f"{self.address}:{listen}", "--host", self.address),
            *("--folder", str(self.keys), *map(str, words), "--json"),
        ]
        secret = {"FIELDPOST_BROKER_PASSWORD": self.password} if self.password else {}
        with log.open("ab") as out:
            popen = subprocess.Popen(
                command,
                env={**self.env, **secret},
                cwd=self.folder,
                stdout=subprocess.PIPE,
                stderr=out,
            )
        made = Process(popen, log)
        self.controllers.append(made)
        assert popen.stdout is not None
        text = b""
        with popen.stdout as said:
            while not text.endswith(b"}\n"):
                line = said.readline()
                assert line, made.text
                text += line
        self.url = json.loads(text)["url"]
        return made

    def sign(self, made: Made, *, name: str = "iris") -> str:
        """Records a package, and signs that it may run; its digest."""
        with Registry(self.workspace) as registry:
            for data in made.blobs.values():
                registry.blobs.put_bytes(data)
            parts = [Blob(digest=one, size=len(data)) for one, data in made.blobs.items()]
            registry.packages.register(
                made.digest,
                [part for part in parts if part.digest != made.digest],
                model=None,
                model_version=None,
                environment=None,
                platform="linux/amd64",
            )
        key = self.offline / "targets.pem"
        self.trust("fleet", "trust", "sign", made.digest, "--name", name, "--key", key)
        return made.digest

    def version(self, answer: str, **behaviour: object) -> str:
        """Records and signs a package that answers so; its digest."""
        return self.sign(package(answer, **behaviour))

    def device(
        self,
        name: str,
        wrap: Callable[..., Sequence[str | Path]] = lambda *words: list(words),
        tags: Mapping[str, str] | None = None,
        **settings: object,
    ) -> AgentFolder:
        """Lets a device join; its agent is not started."""
        token = self.trust("device", "claim", name, "--site", "hall")["token"]
        state = self.folder / name
        state.mkdir()
        made = AgentFolder(name, state, wrap, environment(self.folder))
        made.join(self.url, token)
        made.settings(**settings)
        for key, value in (tags or {}).items():
            self("device", "tag", name, f"{key}={value}")
        self.devices.append(made)
        return made

    def deploy(self, digest: str, *words: object, name: str = "iris") -> Any:
        """Rolls it out to all."""
        given = ("--where", "*", "--soak", "1s", *words)
        return self("fleet", "deploy", name, "--package", digest, *given)

    def rollout(self, name: str = "iris") -> dict[str, Any]:
        """The newest rollout of a deployment."""
        found: dict[str, Any] = self("rollout", "show", name)
        return found

    def until(self, state: str, within_s: float = PATIENCE_S) -> dict[str, Any]:
        """Waits for the rollout to be in a state."""
        found: dict[str, Any] = eventually(
            lambda: (now := self.rollout())["state"] == state and now, within_s
        )
        return found

    def close(self) -> None:
        """Ends everything."""
        for device in self.devices:
            device.end()
        for controller in self.controllers:
            died = controller.popen.poll()
            if died is None:
                controller.end()
            assert died in {None, 0, -signal.SIGKILL}, controller.text


@contextlib.contextmanager
def operating(folder: Path, **given: Any) -> Iterator[Operator]:
    """A fleet with its keys made, whose processes are gone at the end of the block."""
    made = Operator(folder, **given)
    try:
        made.begin()
        yield made
    finally:
        made.close()

"""A fleet of real processes: mosquitto with TLS, `fieldpost fleet controller`, `fieldpost-agent`.

Everything is said on command lines, as an operator and the people at the devices would.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final

import httpx

from tests.support import brokers

ROOT: Final = Path(__file__).parents[2]
BIN: Final = Path(sys.executable).parent
PATIENCE_S: Final = 60.0


def until(condition: Callable[[], Any], what: str = "", within_s: float = PATIENCE_S) -> Any:
    """What the condition says once that is true."""
    deadline = time.monotonic() + within_s
    while not (found := condition()):
        assert time.monotonic() < deadline, f"it never came to be: {what}"
        time.sleep(0.1)
    return found


_FAILS_A_THIRD = """
import json

count = 0


def init():
    pass


def run(data):
    global count
    count += 1
    if count % 3 == 0:
        raise RuntimeError("a third of them fails")
    return {"sum": sum(json.loads(data)["data"][0])}
"""


@dataclass(frozen=True)
class Built:
    """A workspace with a package that answers, and a later one that fails a third of requests."""

    workspace: Path
    good: str
    bad: str

    @classmethod
    def make(cls, folder: Path) -> Built:
        import onnx
        from onnx import TensorProto, helper

        brokers.require()
        x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", 4])
        y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", 4])
        graph = helper.make_graph([helper.make_node("Abs", ["x"], ["y"])], "abs", [x], [y])
        opsets = [helper.make_opsetid("", 18)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
        onnx.save(model, folder / "abs.onnx")
        (folder / "score.py").write_text(_FAILS_A_THIRD)
        made = WholeFleet(folder, folder / "ws")
        made("model", "register", "iris", folder / "abs.onnx")
        good = made("package", "build", "iris")["digest"]
        bad = made("package", "build", "iris", "--script", folder / "score.py")["digest"]
        return cls(folder / "ws", good, bad)

    def copied(self, to: Path) -> Path:
        """A workspace of its own, which shares bytes that nobody writes to."""
        subprocess.run(["cp", "-al", self.workspace, to], check=True)
        for database in self.workspace.glob("*.db*"):
            (to / database.name).unlink()
            (to / database.name).write_bytes(database.read_bytes())
        return to


class Relay:
    """A wire to a port, which can be cut and mended."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._open: list[socket.socket] = []
        self._is_cut = self._is_over = False
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        with self._lock:
            self._is_cut = True
            for each in self._open:
                with contextlib.suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)
                each.close()
            self._open.clear()

    def mend(self) -> None:
        self._is_cut = False

    def close(self) -> None:
        self.cut()
        self._is_over = True
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while not self._is_over:
            try:
                here, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                if self._is_cut:
                    here.close()
                    continue
                try:
                    there = socket.create_connection(("127.0.0.1", self._to), 10)
                except OSError:
                    here.close()
                    continue
                there.settimeout(None)
                self._open += [here, there]
            for one, other in ((here, there), (there, here)):
                threading.Thread(target=self._pump, args=(one, other), daemon=True).start()

    def _pump(self, one: socket.socket, other: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := one.recv(1 << 16):
                other.sendall(data)
        for each in (one, other):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)


@dataclass
class Agent:
    """One device: its folder, and its process."""

    folder: Path
    name: str
    relay: Relay
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> Agent:
        env = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
        env |= {"PYTHONPATH": str(ROOT), "PYTHONPYCACHEPREFIX": str(self.folder.parent / "pyc")}
        with (self.folder / "agent.log").open("ab") as log:
            command = [sys.executable, "-m", "edge.agent.main", "run", "--state", str(self.folder)]
            self.process = subprocess.Popen(command, stderr=log, env=env)
        return self

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        if self.process is not None:
            self.process.send_signal(how)
            self.process.wait(40)
            self.process = None

    def log(self) -> str:
        return (self.folder / "agent.log").read_text(errors="replace")


@dataclass
class WholeFleet:
    """A workspace, its broker, its controller, and its devices; closed by `open`."""

    folder: Path
    workspace: Path
    environment: dict[str, str] = field(default_factory=dict)
    agents: dict[str, Agent] = field(default_factory=dict)
    url: str = ""

    def __post_init__(self) -> None:
        kept = {k: v for k, v in os.environ.items() if not k.startswith("FIELDPOST_")}
        self.environment = {
            **kept, "FIELDPOST_WORKSPACE": str(self.workspace), "PYTHONPATH": str(ROOT),
        }  # fmt: skip
        self.broker: brokers.Mosquitto
        self._controller: subprocess.Popen[str] | None = None
        self._words: tuple[str, ...] = ()

    def __call__(self, *words: object, fails: bool = False) -> Any:
        """What a command says with `--json`."""
        done = subprocess.run(
            [BIN / "fieldpost", *map(str, words), "--json"],
            env=self.environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert (done.returncode != 0) == fails, f"{words}: {done.stdout}{done.stderr}"
        return json.loads(done.stdout) if done.stdout else None

    def text(self, *words: object) -> str:
        """What a command prints for people."""
        done = subprocess.run(
            [BIN / "fieldpost", *map(str, words)],
            env=self.environment, capture_output=True, text=True, check=True,
        )  # fmt: skip
        return done.stdout

    # -- its parts

    @contextlib.contextmanager
    def open(self) -> Iterator[WholeFleet]:
        """Keys, broker and controller, until the end."""
        brokers.require()
        self("fleet", "trust", "init", "--keys", self.folder / "offline")
        self._start_broker()
        address = f"mqtts://localhost:{self.broker.port}"
        self._words = ("--broker", address, "--host", "localhost")
        self._words += ("--listen", f"127.0.0.1:{brokers.free_port()}")
        try:
            self.start_controller()
            yield self
        finally:
            for agent in self.agents.values():
                agent.stop()
                agent.relay.close()
            self.stop_controller()
            self.broker.kill()

    def _start_broker(self, tries: int = 3) -> None:
        port = brokers.free_port()
        etc = self.folder / f"etc-{port}"
        self("fleet", "broker-config", etc, "--host", "localhost", "--port", port, "--user", "root")
        config = etc / "mosquitto.conf"
        self.broker = brokers.Mosquitto(self.folder / "broker", config=config, port=port)
        try:
            self.broker.start()
        except AssertionError:  # somebody else has had the port meanwhile
            if not tries or "in use" not in self.broker.log():
                raise
            self._start_broker(tries - 1)

    def start_controller(self) -> None:
        with self._log() as log:
            self._controller = subprocess.Popen(
                [BIN / "fieldpost", "fleet", "controller", *self._words, "--json"],
                env=self.environment, stdout=subprocess.PIPE, stderr=log, text=True,
            )  # fmt: skip
        text = ""
        assert self._controller.stdout is not None
        while not text.endswith("}\n"):
            line = self._controller.stdout.readline()
            assert line, (self.folder / "controller.log").read_text()
            text += line
        self.url = json.loads(text)["url"]

    def _log(self) -> IO[bytes]:
        return (self.folder / "controller.log").open("ab")

    def stop_controller(self, how: signal.Signals = signal.SIGTERM) -> None:
        if self._controller is not None:
            self._controller.send_signal(how)
            self._controller.wait(40)
            assert self._controller.stdout is not None
            self._controller.stdout.close()
            self._controller = None

    def join(self, name: str, site: str = "hall", **telemetry: float) -> Agent:
        """Enrols a device and starts its agent; it tells more often than devices do."""
        token = self("device", "claim", name, "--site", site)["token"]
        state = self.folder / name
        state.mkdir()
        relay = Relay(self.broker.port)
        (state / "token").write_text(token)
        subprocess.run(
            [sys.executable, "-m", "edge.agent.main", "join", "--url", self.url,
             "--token-file", str(state / "token"), "--state", str(state)],
            env=self.environment, check=True, capture_output=True,
        )  # fmt: skip
        told = {"requests_s": 1.0, "inputs_s": 1.0, "resources_s": 2.0} | telemetry
        lines = [f'broker = "mqtts://localhost:{relay.port}"', "keepalive_s = 5", "drain_s = 5"]
        lines += ["[telemetry]", *(f"{key} = {value}" for key, value in told.items())]
        (state / "agent.toml").write_text("\n".join(lines))
        self.agents[name] = Agent(state, name, relay)
        return self.agents[name].start()

    # -- what an operator does

    def sign(self, package: str, name: str = "iris") -> None:
        key = self.folder / "offline" / "targets.pem"
        self("fleet", "trust", "sign", package, "--name", name, "--key", key)

    def deploy(self, package: str, *words: object) -> str:
        made = self("fleet", "deploy", "iris", "--package", package, "--where", "*", *words)
        return str(made["id"])

    def rollout(self, ref: str = "iris") -> dict[str, Any]:
        found: dict[str, Any] = self("rollout", "show", ref)
        return found

    def until_rollout(self, *states: str, ref: str = "iris") -> dict[str, Any]:
        found: dict[str, Any] = until(
            lambda: (now := self.rollout(ref))["state"] in states and now, f"{ref} {states}"
        )
        return found

    def port(self, device: str) -> int:
        return int(self("device", "show", device)["modules"]["main"]["port"])

    def metrics(self, **headers: str) -> httpx.Response:
        """What monitoring gets."""
        authority = self.workspace / "fleet" / "keys" / "trusted.pem"
        with httpx.Client(verify=_context(authority), trust_env=False) as client:
            return client.get(f"{self.url}/metrics", headers=headers)

    def query(self, sql: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self("fleet", "telemetry", "query", sql)
        return found


def _context(authority: Path) -> Any:
    import ssl

    return ssl.create_default_context(cafile=str(authority))


def score(port: int, rows: list[list[float]], times: int = 1) -> list[int]:
    """The statuses of so many requests."""
    with httpx.Client(trust_env=False) as client:
        return [
            client.post(f"http://127.0.0.1:{port}/score", json={"data": rows}).status_code
            for _ in range(times)
        ]

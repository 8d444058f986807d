"""Servers side by side: started, checked, measured in turn, ended."""

from __future__ import annotations

import http.client
import os
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from benchmarks import venvs
from benchmarks.contender import Contender, Start
from benchmarks.load import LoadError, TooSlowError
from benchmarks.machine import Process, StartError, free_ports
from benchmarks.payloads import IRIS, Ask, pixels
from benchmarks.venvs import REPOSITORY, InstallError

_READY_S = 60.0
_OURS_ALONE = ("FIELDPOST_", "PYTHON", "AZUREML_", "AML_")


@dataclass
class Running:
    """One server that answers.

    Attributes:
        name: Of the contender.
        ask: The request of the work that is measured.
        url: Where.
        ready_s: From its start to the first right answer.
        process: It and all that it has started.
    """

    name: str
    ask: Ask
    url: str
    ready_s: float
    process: Process
    port: int


@dataclass
class Site:
    """A temporary folder with the models, and what is known of the contenders.

    Attributes:
        folder: The place.
        models: Name to ONNX file.
        missing: Name of a contender to the reason why it cannot be measured.
    """

    folder: Path
    models: Mapping[str, Path]
    missing: dict[str, str] = field(default_factory=dict)
    _count: int = 0
    _labels: dict[str, list[int]] = field(default_factory=dict)

    def labels(self, model: str) -> list[int]:
        """What the model answers."""
        if model not in self._labels:
            import onnxruntime

            session = onnxruntime.InferenceSession(str(self.models[model]))
            rows = np.array(IRIS, np.float32) if model == "iris" else pixels()
            self._labels[model] = session.run(["label"], {"X": rows})[0].tolist()
        return self._labels[model]

    def start(self, contender: Contender, work: str) -> Running:
        """Starts a server and waits for its first right answer.

        Raises:
            InstallError: It cannot be installed.
            StartError: It does not come up, or answers wrongly.
        """
        if contender.venv:
            venvs.ensure(contender.venv)
        ask = contender.asks[work]
        first, second, third = free_ports(3)
        start = Start(self._folder(contender), self.models[ask.model], (first, second, third))
        contender.prepare(start)
        words = start.words(contender.venv)
        command = [word.format(**words) for word in contender.command]
        given = {name: value.format(**words) for name, value in contender.environment.items()}
        log = start.folder / "log"
        process = Process.start(command, _environment(start) | given, start.folder, log)
        port = start.ports[contender.grpc] if work == "grpc" else start.ports[0]
        try:
            ready_s = process.wait_ready(lambda: _answers(port, ask, work), _READY_S)
            self._check(port, ask, work)
        except BaseException:
            process.end()
            raise
        url = f"http://127.0.0.1:{port}"
        return Running(contender.name, ask, url, ready_s, process, port)

    def _folder(self, contender: Contender) -> Path:
        self._count += 1
        folder = self.folder / f"{self._count}-{contender.venv or 'here'}"
        folder.mkdir()
        return folder

    def _check(self, port: int, ask: Ask, work: str) -> None:
        expected = self.labels(ask.model)
        found = grpc_labels(port, ask) if work == "grpc" else http_labels(port, ask)
        if found != expected:
            raise StartError(f"answers {str(found)[:60]} instead of {str(expected)[:60]}")

    @contextmanager
    def running(self, contenders: Sequence[Contender], work: str) -> Iterator[list[Running]]:
        """All of them at once; those that cannot be had are noted in `missing`."""
        with ExitStack() as stack:
            servers = []
            for contender in contenders:
                try:
                    server = self.start(contender, work)
                except (InstallError, StartError) as error:
                    self.missing[contender.name] = str(error)
                    continue
                self.missing.pop(contender.name, None)
                stack.callback(server.process.end)
                servers.append(server)
            yield servers

    def best(
        self,
        servers: Sequence[Running],
        rounds: int,
        measure: Callable[[Running], float],
        better: Callable[[float, float], float] = max,
    ) -> dict[str, float]:
        """Measures all in turn, several times, and takes each one's best.

        Others' work on the machine only ever takes away: the best is the closest to the truth.
        One wrong answer, though, and there is no figure at all.
        """
        found: dict[str, float] = {}
        slow: dict[str, str] = {}
        for _ in range(rounds):
            for server in servers:
                try:
                    figure = measure(server)
                except TooSlowError as error:
                    slow[server.name] = str(error)
                except LoadError as error:
                    self.missing[server.name] = str(error)
                else:
                    found[server.name] = better(figure, found.get(server.name, figure))
        self.missing |= {name: why for name, why in slow.items() if name not in found}
        return {name: figure for name, figure in found.items() if name not in self.missing}

    def fresh(self) -> Site:
        """The same for another row, which has to find out by itself what is missing."""
        self.missing.clear()
        return self


def _environment(start: Start) -> dict[str, str]:
    """The usual variables, without those that are meant for one kind of server."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(_OURS_ALONE)}
    return kept | {"BENCH_MODEL": str(start.model), "PYTHONPATH": str(REPOSITORY)}


def _answers(port: int, ask: Ask, work: str) -> bool:
    """Whether the request is answered with a 200; for gRPC: whether the port is open."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        if work == "grpc":
            connection.connect()
            return True
        connection.request("POST", ask.path, ask.body, dict(ask.headers))
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def http_labels(port: int, ask: Ask) -> list[int]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("POST", ask.path, ask.body, dict(ask.headers))
        response = connection.getresponse()
        headers = {name.lower(): value for name, value in response.getheaders()}
        return ask.labels(headers, response.read())
    except (ValueError, KeyError, TypeError) as error:
        raise StartError(f"its answer cannot be read: {error!r}") from None
    finally:
        connection.close()


def grpc_labels(port: int, ask: Ask) -> list[int]:
    """What gRPC's own client is answered, asking for some seconds."""
    import json
    import sys

    key = ask.headers.get("Authorization", "")
    command = [sys.executable, "-m", "benchmarks.grpc_check", f"127.0.0.1:{port}", key]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=60, cwd=REPOSITORY, check=False
    )
    if done.returncode != 0:
        raise StartError(done.stderr.strip().rpartition("\n")[2][:200])
    labels: list[int] = json.loads(done.stdout)
    return labels

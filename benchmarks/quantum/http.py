"""A quantum model behind HTTP, beside an iris model in the same server."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx

from benchmarks import load
from benchmarks.machine import Process, free_ports
from benchmarks.payloads import Ask
from benchmarks.quantum.bench import STRUCTURE, Bench
from benchmarks.results import Row
from scoring.quantum import document, layers
from scoring.quantum.circuit import Circuit
from scoring.quantum.features import Encoding

LEAST = 0.9
_READY_S = 60
_PEER = "iris (logistic regression)"
_FLOWER = [5.1, 3.5, 1.4, 0.2]


def http(bench: Bench) -> list[Row]:
    """Both take the same request: four numbers; on six qubits, what is missing to 64 is zero."""
    load.install()
    body = json.dumps({"data": [_FLOWER]}).encode()
    ask = Ask("quantum", "iris", "/score", body, _labels)
    with tempfile.TemporaryDirectory(prefix="fieldpost-bench-") as name:
        folder = Path(name)
        with _serving(_iris(folder), folder) as iris, _serving(_circuit(folder), folder) as circuit:
            rates = {iris: 0.0, circuit: 0.0}
            spent = {iris: 0.0, circuit: 0.0}
            for _ in range(bench.rounds):
                for served, best in rates.items():
                    rate, each = _measured(served, ask, folder)
                    rates[served], spent[served] = max(best, rate), max(spent[served], each)
            ratio = rates[circuit] / rates[iris]
            row = Row(
                "HTTP, one row of four numbers, 6 qubits",
                "requests/s",
                rates[circuit],
                f"at least {LEAST:g} x {_PEER}",
                ratio >= LEAST,
                {_PEER: rates[iris]},
                ratio,
                {"ours": spent[circuit], _PEER: spent[iris]},
            )
    return [row]


def _measured(served: _Served, ask: Ask, folder: Path) -> tuple[float, float]:
    """Requests per second by the clock, and by the server's own processor time."""
    before = served.process.processor_s()
    found = load.wrk(served.url, ask, folder)
    return found.rate, found.count / (served.process.processor_s() - before)


def _labels(_headers: Mapping[str, str], body: bytes) -> list[int]:
    found: list[int] = json.loads(body)["predictions"]
    return found


def _iris(folder: Path) -> Path:
    import skops.io
    from sklearn.datasets import load_iris
    from sklearn.linear_model import LogisticRegression

    path = folder / "iris.skops"
    skops.io.dump(LogisticRegression(max_iter=500).fit(*load_iris(return_X_y=True)), path)
    return path


def _circuit(folder: Path) -> Path:
    gates = tuple(layers.parse(STRUCTURE, 6))
    angles = tuple(0.1 * place for place in range(len(gates)))
    path = folder / "six.circuit.json"
    document.save(Circuit(6, gates, angles, encoding=Encoding(4)), path)
    return path


@dataclass(frozen=True, eq=False)
class _Served:
    url: str
    process: Process


@contextlib.contextmanager
def _serving(model: Path, folder: Path) -> Iterator[_Served]:
    (port,) = free_ports(1)
    fieldpost = str(Path(sys.executable).with_name("fieldpost"))
    command = [fieldpost, "serve", str(model), "--port", str(port)]
    process = Process.start(command, os.environ, folder, folder / f"{model.name}.log")
    url = f"http://127.0.0.1:{port}"

    def answers() -> bool:
        with contextlib.suppress(httpx.HTTPError):
            return httpx.post(f"{url}/score", json={"data": [_FLOWER]}).is_success
        return False

    try:
        process.wait_ready(answers, _READY_S)
        yield _Served(url, process)
    finally:
        process.end()

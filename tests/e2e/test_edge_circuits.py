"""Circuits on devices without numpy: trained, packaged, and answered as the server answers."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from edge.agent.config import Config
from edge.agent.device import Device
from scoring.formats.base import Trust
from scoring.prepare import COMPILED_PATH, prepare
from scoring.quantum import document
from scoring.quantum.circuit import Model
from scoring.runtimes.onnx import OnnxPredictor, open_session
from serve import Workspace
from tests.support.blob_source import Made
from tests.support.circuit_server import serving, write_root
from tests.support.circuits import EVERY_STEP, against_rest, random_circuit, rows_for
from tests.support.edge_site import EdgeSite
from tests.support.real_packages import made_of
from tests.support.server import LiveServer, serve_model

pytest.importorskip("onnx")
pytestmark = pytest.mark.timeout(300)

TOLERANCE = 1e-12
MODELS: dict[str, Model] = {
    **{f"n{n}": random_circuit(n, 5 * n, 30 + n, most_controls=n - 1) for n in range(2, 5)},
    **{f"seed{seed}": random_circuit(4, 25, seed) for seed in range(4)},
    "words": random_circuit(4, 20, 20, classes=("no", "yes")),
    "several": random_circuit(4, 30, 21, measured=2, classes=("a", "b", "c")),
    "steps": random_circuit(4, 20, 22, encoding=EVERY_STEP),
    "rest": against_rest(),
}

GOOD: list[bytes] = [
    b'{"data": [[0.5, -1, 2, 3e-2]]}',
    b'{"data": [[1, 2, 3, 4], [0, 0, 0, 0]]}',
    b'{"inputs": {"X": [[1, 2, 3, 4]]}}',
    b'{"inputs": [[1, 2, 3, 4]]}',
    b'{"instances": [[1, 2, 3, 4]]}',
    b'{"input_data": [[1, 2, 3, 4]], "params": {"a": 1}}',
    b'{"input_data": {"columns": [0, 1, 2, 3], "index": [5], "data": [[1, 2, 3, 4]]}}',
    b'{"dataframe_split": {"columns": ["b", "a", "c", "d"], "data": [[1, 2, 3, 4]]}}',
    b'{"dataframe_records": [{"X": [1, 2, 3, 4]}]}',
    b"[[1, 2, 3, 4]]",
    b'\xef\xbb\xbf{"data": [[1, 2, 3, 4]]}',
    b'{"data": [[1, 2, 3, 4]], "data": [[4, 3, 2, 1]]}',
    b'{"data": [[1e-300, 2, 3, 123456789012345678901234567890]]}',
]
BAD: list[bytes] = [
    b"",
    b"  ",
    b"{",
    b'{"data": [[1, 2, 3, 4]]',
    b"nonsense",
    b'"text"',
    b"null",
    b"17",
    b"{}",
    b'{"rows": [[1, 2, 3, 4]]}',
    b'{"data": [[1, 2, 3, 4]], "more": 1}',
    b'{"data": []}',
    b'{"data": [[]]}',
    b'{"data": [[1, 2, 3]]}',
    b'{"data": [[1, 2, 3, 4], [1, 2, 3]]}',
    b'{"data": [[1, 2, 3, 4, 5]]}',
    b'{"data": [1, 2, 3, 4]}',
    b'{"data": [[[1], 2, 3, 4]]}',
    b'{"data": [[1, 2, {"a": 3}, 4]]}',
    b'{"data": [[1, "2", 3, 4]]}',
    b'{"data": [[1, true, 3, 4]]}',
    b'{"data": [[1, null, 3, 4]]}',
    b'{"data": [[1, NaN, 3, 4]]}',
    b'{"data": [[1, Infinity, 3, 4]]}',
    b'{"data": [[1, 1e999, 3, 4]]}',
    b'{"data": [[1, ' + b"9" * 400 + b", 3, 4]]}",
    b'{"data": [[1, ' + b"9" * 5000 + b", 3, 4]]}",
    b'{"data": [[1, "\\ud800", 3, 4]]}',
    b'{"data": [["\xff", 2, 3, 4]]}',
    b'{"data": {"X": [[1, 2, 3, 4]]}}',
    b'{"inputs": {"Y": [[1, 2, 3, 4]]}}',
    b'{"inputs": {"X": [[1, 2, 3, 4]], "Y": 1}}',
    b'{"inputs": {}}',
    b'{"inputs": 3}',
    b'{"dataframe_records": [{"a": 1}]}',
    b'{"dataframe_records": [3]}',
    b'{"dataframe_split": {"columns": ["a"], "data": [[1]]}}',
    b'{"dataframe_split": {"data": [[1, 2, 3, 4]]}}',
    b'{"dataframe_split": {"columns": [null], "data": [[1]]}}',
    b'{"input_data": {"columns": [0, 1], "index": [1, 2], "data": [[1, 2]]}}',
    b"[" * 70 + b"]" * 70,
    b'{"data": ' + b"[" * 80 + b"1" + b"]" * 80 + b"}",
    b"[" * 200_000,
    b'{"data": [[1, 2, 3, 4]], "id": 1, "x\\u00e9": 2}',
]


def server_of(model: Model, folder: Path) -> Any:
    """The model as the server serves it."""
    path = folder / "moons.circuit.json"
    document.save(model, path)
    prepared = prepare(path, folder / "prepared", trust=Trust())
    return OnnxPredictor(open_session(folder / "prepared" / COMPILED_PATH), prepared.schema)


@pytest.mark.parametrize("name", MODELS)
def test_answers_are_the_servers(name: str, tmp_path: Path) -> None:
    model = MODELS[name]
    rows = rows_for(model, 24)
    predictor = server_of(model, tmp_path)
    with serve_model(predictor) as live, serving(write_root(tmp_path / "root", model)) as (port, _):
        body = {"data": rows.tolist()}
        wanted = httpx.post(f"http://127.0.0.1:{live.port}/score", json=body).json()
        found = httpx.post(f"http://127.0.0.1:{port}/score", json=body).json()
    assert list(found) == list(wanted) == ["predictions", "probabilities"]
    shares = np.array(wanted["probabilities"])
    assert np.abs(np.array(found["probabilities"]) - shares).max() < TOLERANCE
    ordered = np.sort(shares)
    clear = ordered[:, -1] - ordered[:, -2] > TOLERANCE
    for place in np.flatnonzero(clear):
        assert found["predictions"][place] == wanted["predictions"][place]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[LiveServer, int]]:
    """The server and the small runtime with the same circuit of two qubits."""
    folder = tmp_path_factory.mktemp("pair")
    model = random_circuit(2, 8, 5)
    predictor = server_of(model, folder)
    root = write_root(folder / "root", model, predictor.schema)
    with serve_model(predictor) as live, serving(root) as (port, _):
        yield live, port


def both(pair: tuple[LiveServer, int], method: str, path: str, **given: Any) -> list[Any]:
    ports = pair[0].port, pair[1]
    return [httpx.request(method, f"http://127.0.0.1:{p}{path}", **given) for p in ports]


@pytest.mark.parametrize("body", GOOD)
def test_every_form_is_answered_alike(pair: tuple[LiveServer, int], body: bytes) -> None:
    wanted, found = both(pair, "POST", "/score", content=body)
    assert found.status_code == wanted.status_code
    assert same(found.json(), wanted.json())


def same(one: Any, other: Any) -> bool:
    """Whether two documents are equal, but for the last digits of numbers."""
    if isinstance(one, float) or isinstance(other, float):
        return bool(abs(one - other) < TOLERANCE)
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


@pytest.mark.parametrize("body", BAD, ids=range(len(BAD)))
def test_what_is_wrong_is_told_alike(pair: tuple[LiveServer, int], body: bytes) -> None:
    wanted, found = both(pair, "POST", "/score", content=body)
    assert found.status_code == wanted.status_code
    assert 400 <= found.status_code < 500
    assert found.json() == wanted.json()


@pytest.mark.parametrize(
    ("method", "path", "headers"),
    [
        ("GET", "/", {}),
        ("GET", "/health/live", {}),
        ("GET", "/health/ready", {}),
        ("GET", "/health/startup", {}),
        ("GET", "/v2/health/ready", {}),
        ("GET", "/nothing", {}),
        ("GET", "/nothing%20here", {}),
        ("PUT", "/score", {}),
        ("OPTIONS", "/score", {}),
        ("GET", "/swagger.json", {}),
        ("GET", "/swagger.json?version=3.1", {}),
        ("GET", "/swagger.json?version=9", {}),
        ("GET", "/openapi.json", {}),
        ("POST", "/score", {"content-type": "text/csv"}),
        ("POST", "/score", {"content-type": "application/json; charset=latin-1"}),
        ("POST", "/score", {"content-encoding": "br"}),
        ("POST", "/score", {"content-encoding": "gzip"}),
        ("POST", "/score", {"expect": "a miracle"}),
    ],
)
def test_routes_answer_alike(
    pair: tuple[LiveServer, int], method: str, path: str, headers: dict[str, str]
) -> None:
    body = b'{"data": [[1, 2, 3, 4]]}' if method == "POST" else b""
    wanted, found = both(pair, method, path, content=body, headers=headers)
    assert found.status_code == wanted.status_code
    assert found.headers["content-type"] == wanted.headers["content-type"]
    assert found.headers.get("allow") == wanted.headers.get("allow")
    if "json" in found.headers["content-type"]:
        assert same(without_name(found.json()), without_name(wanted.json()))
    else:
        assert found.content == wanted.content


def without_name(page: Any) -> Any:
    """A document without the model's name, which is another in tests of the server."""
    return json.loads(json.dumps(page).replace("moons", "sums"))


def test_packed_bodies_are_read(pair: tuple[LiveServer, int]) -> None:
    body = gzip.compress(b'{"data": [[1, 2, 3, 4]]}')
    wanted, found = both(pair, "POST", "/score", content=body, headers={"content-encoding": "gzip"})
    assert found.status_code == 200
    assert same(found.json(), wanted.json())


# -- on a device


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Made, np.ndarray[Any, Any], Any]:
    """Half-moons by the command line, as a package: its blobs, rows, and the server's answers."""
    pytest.importorskip("sklearn")
    from sklearn.datasets import make_moons

    folder = tmp_path_factory.mktemp("trained")
    x, y = make_moons(60, noise=0.1, random_state=0)
    np.savetxt(
        folder / "moons.csv", np.column_stack([x, y]), "%.6f", ",", header="a,b,y", comments=""
    )
    command = [str(Path(sys.executable).with_name("fieldpost")), "quantum", "train"]
    command.append(str(folder / "moons.csv"))
    options = ["--encoding", "constant:1 product", "--epochs", "3", "--seed", "1", "--out"]
    out = folder / "half-moons.circuit.json"
    subprocess.run([*command, *options, str(out)], check=True, timeout=200, capture_output=True)
    with Workspace(folder / "workspace") as workspace:
        version = workspace.models.register("half-moons", out, sample=x[:5])
        package = workspace.packages.build(version)
        made = made_of(workspace, package.digest)
        deployment = workspace.deploy("half-moons", package, target="local")
        try:
            return made, x, deployment.score({"data": x.tolist()})
        finally:
            deployment.stop()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[EdgeSite]:
    with EdgeSite(tmp_path).open() as site:
        yield site


@pytest.fixture
def config(site: EdgeSite, tmp_path: Path) -> Config:
    return site.enrol(tmp_path / "device")


def test_a_trained_circuit_on_a_device(
    site: EdgeSite, config: Config, trained: tuple[Made, np.ndarray[Any, Any], Any]
) -> None:
    made, rows, wanted = trained
    with Device(config):
        site.wish(made, run="circuit")
        state = site.wait_for("good", made)
        url = f"http://127.0.0.1:{state.port}/score"
        found = httpx.post(url, json={"data": rows.tolist()}).json()
    shares = np.array(wanted["probabilities"])
    assert np.abs(np.array(found["probabilities"]) - shares).max() < TOLERANCE
    assert found["predictions"] == wanted["predictions"]
    state_folder = Path(config.state)
    unpacked = sorted(p.name for p in (state_folder / "unpacked" / "roots").glob("*/*"))
    assert unpacked == ["model", "pycache"]  # no numpy came over the wire, and none is needed
    env = next(layer for layer in made.layers if layer.name == "env")
    assert not list(state_folder.glob(f"blobs/**/{env.digest.partition(':')[2]}*"))


def test_circuits_follow_each_other_and_no_request_is_lost(
    site: EdgeSite, config: Config, trained: tuple[Made, np.ndarray[Any, Any], Any]
) -> None:
    """From a process with numpy to the small runtime, and back, under load."""
    made, rows, _ = trained
    body = {"data": rows[:1].tolist()}
    seen: set[tuple[int, str]] = set()
    over = threading.Event()

    def client(url: str) -> None:
        while not over.is_set():
            answer = httpx.post(url, json=body)
            seen.add((answer.status_code, str(answer.json()["predictions"])))

    with Device(config):
        site.wish(made)
        port = site.wait_for("good", made, 90).port
        with ThreadPoolExecutor(1) as pool:
            asking = pool.submit(client, f"http://127.0.0.1:{port}/score")
            try:
                for run in ("circuit", "process"):
                    site.wish(made, run=run)
                    assert site.wait_for("good", made, 90).port == port
            finally:
                over.set()
            asking.result(30)  # an error of its own ends it
    assert len(seen) == 1
    assert next(iter(seen))[0] == 200

"""Several models in one server: loaded, swapped and unloaded while clients ask, in every worker."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import pytest

from tests.support.server import until

if TYPE_CHECKING:
    from collections.abc import Iterator

FIELDPOST = str(Path(sys.executable).parent / "fieldpost")


def write_model(path: Path, factor: float, ballast: int = 0) -> None:
    """`y = factor * x`, with so many bytes of weights for nothing."""
    from onnx import TensorProto, helper, numpy_helper, save

    names = ["x", "factor"]
    weights = [numpy_helper.from_array(np.array([factor], np.float32), "factor")]
    nodes = [helper.make_node("Mul", names, ["y"])]
    if ballast:
        data = np.arange(ballast // 4, dtype=np.float32)
        weights.append(numpy_helper.from_array(data, "ballast"))
        nodes.append(helper.make_node("Cast", ["x"], ["place"], to=TensorProto.INT64))
        nodes.append(helper.make_node("Gather", ["ballast", "place"], ["most"]))
    graph = helper.make_graph(
        nodes,
        "scale",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 1])]
        + ([helper.make_tensor_value_info("most", TensorProto.FLOAT, ["n", 1])] if ballast else []),
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    save(model, part, format="protobuf")
    part.rename(path)


class Server:
    """`fieldpost serve` in a process of its own."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        ready = folder / "ready"
        command = [FIELDPOST, "serve", *arguments, "--port", "0", "--ready-file", str(ready)]
        with (folder / "log").open("w") as log:
            self.process = subprocess.Popen(command, stderr=log)
        deadline = time.monotonic() + 60
        while not ready.exists():
            assert self.process.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        self.url = ready.read_text().strip()

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)

    def infer(self, name: str, client: httpx.Client | None = None) -> float:
        body = {
            "inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 1], "data": [2.0]}],
            "outputs": [{"name": "y"}],
        }
        url = f"{self.url}/v2/models/{name}/infer"
        answer = (client or httpx).post(url, json=body, timeout=30)
        assert answer.status_code == 200, answer.text
        return float(answer.json()["outputs"][0]["data"][0])

    def post(self, path: str) -> httpx.Response:
        return httpx.post(self.url + path, timeout=60)


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    write_model(tmp_path / "shelf/double/model.onnx", 2)
    write_model(tmp_path / "shelf/many/1/model.onnx", 1)
    write_model(tmp_path / "shelf/many/10/model.onnx", 10)
    return tmp_path / "shelf"


@pytest.fixture(params=["1", "3"], ids=["one worker", "three workers"])
def server(shelf: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Server]:
    live = Server(tmp_path, "--repository", str(shelf), "--workers", request.param)
    yield live
    assert live.stop() == 0


def index(server: Server) -> dict[str, list[tuple[str, str]]]:
    found: dict[str, list[tuple[str, str]]] = {}
    for entry in server.post("/v2/repository/index").json():
        found.setdefault(entry["name"], []).append((entry["version"], entry["state"]))
    return found


def test_models_come_and_go_in_every_worker(server: Server, shelf: Path) -> None:
    assert index(server) == {
        "double": [("1", "READY")],
        "many": [("1", "READY"), ("10", "READY")],
    }
    assert [server.infer(name) for name in ("double", "many", "many/versions/1")] == [4, 20, 2]
    write_model(shelf / "new/model.onnx", 100)
    assert index(server)["new"] == [("", "UNAVAILABLE")]
    loaded = server.post("/v2/repository/models/new/load")
    assert loaded.status_code == 200, loaded.text
    # Each connection may meet another worker.
    assert {server.infer("new") for _ in range(20)} == {200.0}
    assert server.post("/v2/repository/models/new/unload").status_code == 200
    for _ in range(20):
        url = f"{server.url}/v2/models/new/infer"
        assert httpx.post(url, json={}).status_code == 503


def test_a_new_version_swaps_in_without_a_dropped_request(server: Server, shelf: Path) -> None:
    """Clients ask all the while; each answer is that of one version, and the newest one wins."""
    stop = threading.Event()
    seen: list[list[float]] = [[], [], []]
    failures: list[str] = []

    def ask(number: int) -> None:
        with httpx.Client() as client:
            while not stop.is_set():
                try:
                    seen[number].append(server.infer("double", client))
                except (AssertionError, httpx.HTTPError) as error:
                    failures.append(repr(error))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(len(seen))]
    for thread in threads:
        thread.start()
    for factor in (3, 4, 5):
        write_model(shelf / "double/model.onnx", factor)
        answer = server.post("/v2/repository/models/double/load")
        assert answer.status_code == 200, answer.text
        assert {server.infer("double") for _ in range(10)} == {2.0 * factor}
    stop.set()
    for thread in threads:
        thread.join()
    assert not failures
    assert all(set(answers) <= {4, 6, 8, 10} and answers == sorted(answers) for answers in seen)
    assert all(answers[-1] >= 8 for answers in seen)


def test_a_version_that_does_not_load_leaves_the_old_one(server: Server, shelf: Path) -> None:
    (shelf / "double/model.onnx").write_bytes(b"\x08\x09torn")
    answer = server.post("/v2/repository/models/double/load")
    assert answer.status_code >= 400
    assert "error" in answer.json()
    assert server.infer("double") == 4


def memory_mib(process: subprocess.Popen[Any]) -> float:
    text = Path(f"/proc/{process.pid}/status").read_text()
    return int(text.partition("VmRSS:")[2].split()[0]) / 1024


def test_memory_of_an_unloaded_model_goes_back(tmp_path: Path) -> None:
    write_model(tmp_path / "small.onnx", 2)
    write_model(tmp_path / "large.onnx", 3, ballast=200 << 20)
    things = [f"small={tmp_path / 'small.onnx'}", f"large={tmp_path / 'large.onnx'}"]
    server = Server(tmp_path, *things)
    try:
        assert server.infer("large") == 6
        loaded = memory_mib(server.process)
        server.post("/v2/repository/models/large/unload")
        until(lambda: memory_mib(server.process) < loaded - 150)
        for _ in range(3):
            server.post("/v2/repository/models/large/load")
            server.post("/v2/repository/models/large/unload")
        until(lambda: memory_mib(server.process) < loaded - 120)
        assert server.infer("small") == 4
    finally:
        assert server.stop() == 0


def test_two_things_of_one_name_are_refused(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        write_model(tmp_path / folder / "model.onnx", 1)
    things = [str(tmp_path / "a/model.onnx"), str(tmp_path / "b/model.onnx")]
    done = subprocess.run(
        [FIELDPOST, "serve", *things, "--json"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "model" in done.stderr + done.stdout


def test_a_repository_that_is_not_there_is_told(tmp_path: Path) -> None:
    done = subprocess.run(
        [FIELDPOST, "serve", "--repository", str(tmp_path / "none")],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"FIELDPOST_WORKSPACE": str(tmp_path)},
    )
    assert done.returncode == 1
    assert "none" in done.stderr
    assert "Traceback" not in done.stderr


def test_json_is_one_document(tmp_path: Path) -> None:
    write_model(tmp_path / "one.onnx", 1)
    write_model(tmp_path / "two.onnx", 2)
    process = subprocess.Popen(
        [FIELDPOST, "serve", "one.onnx", "b=two.onnx", "--port", "0", "--json"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        lines = iter(process.stdout.readline, "}\n")
        url = json.loads("".join(lines) + "}")["url"]
        names = {entry["name"] for entry in httpx.post(f"{url}/v2/repository/index").json()}
        assert names == {"one", "b"}
    finally:
        process.terminate()
        assert process.wait(20) == 0
        process.stdout.close()

"""A real package, booted as an image boots it: nothing but its own layers is importable."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import onnx
import pytest
import tritonclient.grpc as triton
from onnx import TensorProto, helper

from scoring.packages.unpack import unpack_package
from serve import Workspace
from serve.server.access.keychain import Keychain
from tests.support.collector import Collector, attributes
from tests.support.server import until

if TYPE_CHECKING:
    from collections.abc import Iterator

LARGE = [[0.5, float(number)] for number in range(2000)]
pytestmark = pytest.mark.timeout(120)


def doubling() -> onnx.ModelProto:
    """`y = x + x`, for any number of rows of two floats."""
    x, y = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, 2]) for name in ("x", "y")
    )
    graph = helper.make_graph([helper.make_node("Add", ["x", "x"], ["y"])], "doubling", [x], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 9
    return model


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("package")
    onnx.save(doubling(), folder / "twice.onnx")
    with Workspace(folder / "workspace") as workspace:
        model = workspace.models.register("twice", folder / "twice.onnx")
        package = workspace.packages.build(model)
        return unpack_package(package.digest, workspace.registry.blobs, folder / "cache")


class Booted:
    """A process that runs the package, with an empty environment but for what is given."""

    def __init__(self, root: Path, **settings: str) -> None:
        reading, writing = os.pipe()
        given = {f"FIELDPOST_SERVER_{name.upper()}": value for name, value in settings.items()}
        with os.fdopen(reading, "rb") as status:
            self.process = subprocess.Popen(
                [sys.executable, "-I", "-S", root / "runtime/scoring/boot.py", root],
                env={"FIELDPOST_SERVER_PORT": "0", "FIELDPOST_STATUS_FD": str(writing), **given},
                pass_fds=[writing],
                stderr=subprocess.PIPE,
                cwd=root,
            )
            os.close(writing)
            self.report: dict[str, Any] = json.loads(status.readline())
        self.url = str(self.report.get("url", ""))

    def maps(self) -> str:
        """What the process has loaded."""
        return Path(f"/proc/{self.process.pid}/maps").read_text()

    def output(self) -> str:
        """All that it printed, after its end."""
        assert self.process.stderr is not None
        return self.process.stderr.read().decode()


@contextlib.contextmanager
def booted(root: Path, **settings: str) -> Iterator[Booted]:
    server = Booted(root, **settings)
    try:
        yield server
    finally:
        server.process.kill()
        server.process.communicate()


@pytest.fixture(scope="module")
def server(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Booted]:
    folder = tmp_path_factory.mktemp("server")
    given = {"jobs_dir": str(folder / "jobs"), "access_log": str(folder / "access.log")}
    with booted(root, **given) as opened:
        yield opened


def test_every_protocol_answers(server: Booted) -> None:
    with httpx.Client(base_url=server.url) as client:
        score = client.post("/score", json={"data": [[1, 2]]})
        assert score.json() == {"predictions": [[2.0, 4.0]]}
        v1 = client.post("/v1/models/twice:predict", json={"instances": [[1, 2]]})
        assert v1.json() == {"predictions": [[2.0, 4.0]]}
        mlflow = client.post("/invocations", json={"inputs": [[1, 2]]})
        assert mlflow.status_code == 200, mlflow.text
        tensor = {"name": "x", "shape": [2000, 2], "datatype": "FP32", "data": LARGE}
        large = client.post("/v2/models/twice/infer", json={"inputs": [tensor]})
        assert large.json()["outputs"][0]["data"][-2:] == [1.0, 3998.0]
        assert client.post("/score", json={"data": LARGE}).json()["predictions"][-1] == [1.0, 3998]
        assert "fieldpost" in client.get("/metrics").text
        assert client.get("/openapi.json").status_code == 200


def test_large_bodies_are_read_by_vector_instructions(server: Booted) -> None:
    assert httpx.post(f"{server.url}/score", json={"data": LARGE}).status_code == 200
    present = sys.version_info < (3, 14)  # simdjson has no wheel for later ones
    assert ("simdjson" in server.maps()) == present


def test_grpc_answers(server: Booted) -> None:
    with triton.InferenceServerClient(server.url.removeprefix("http://")) as client:
        assert client.is_model_ready("twice")
        tensor = triton.InferInput("x", [1, 2], "FP32")
        tensor.set_data_from_numpy(np.array([[3, 4]], np.float32))
        assert client.infer("twice", [tensor]).as_numpy("y").tolist() == [[6.0, 8.0]]


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_http2_answers(server: Booted) -> None:
    command = ["curl", "-sS", "--http2-prior-knowledge", "-d", '{"data": [[1, 2]]}']
    done = subprocess.check_output([*command, f"{server.url}/score"], timeout=20)
    assert json.loads(done) == {"predictions": [[2.0, 4.0]]}


def test_jobs_are_kept_and_done(server: Booted) -> None:
    with httpx.Client(base_url=server.url) as client:
        accepted = client.post(
            "/score", json={"data": [[1, 2]]}, headers={"prefer": "respond-async"}
        )
        assert accepted.status_code == 202, accepted.text
        place = accepted.headers["location"]
        until(lambda: client.get(place).json()["status"] == "succeeded")
        assert client.get(f"{place}/result").json() == {"predictions": [[2.0, 4.0]]}


def test_keys_and_the_access_log(root: Path, tmp_path: Path) -> None:
    keys, log = tmp_path / "keys.json", tmp_path / "access.log"
    _, secret = Keychain(keys).create("tester")
    with booted(root, api_keys=str(keys), access_log=str(log)) as server:
        body = {"data": [[1, 2]]}
        assert httpx.post(f"{server.url}/score", json=body).status_code == 401
        headers = {"authorization": f"Bearer {secret}"}
        answer = httpx.post(f"{server.url}/score", json=body, headers=headers)
        assert answer.json() == {"predictions": [[2.0, 4.0]]}
        until(lambda: log.read_text().count("\n") == 2)
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["status"] for line in lines] == [401, 200]
    assert secret not in log.read_text()


def test_several_workers_need_no_supervisor(root: Path) -> None:
    with booted(root, workers="2", access_log="-") as server:
        for _ in range(8):
            answer = httpx.post(f"{server.url}/score", json={"data": [[1, 2]]})
            assert answer.json() == {"predictions": [[2.0, 4.0]]}
        assert 'worker="1"' in httpx.get(f"{server.url}/metrics").text
        server.process.terminate()
        assert server.process.wait(30) == 0
        told = [json.loads(line) for line in server.output().splitlines() if line[:1] == "{"]
    assert [line["status"] for line in told].count(200) == 9
    assert {line["source"] for line in told} <= {"w0", "w1"}


def test_traces_are_sent_whatever_the_package_has(root: Path) -> None:
    assert not list(root.glob("**/opentelemetry"))
    with Collector() as collector:
        with booted(root, traces=collector.url, trace_ratio="1") as server:
            answer = httpx.post(f"{server.url}/score", json={"data": [[1, 2]]})
            assert answer.json() == {"predictions": [[2.0, 4.0]]}
            server.process.terminate()
            assert server.process.wait(20) == 0
        spans = {span.name: span for span in collector.spans}
        assert attributes(spans["POST /score"])["fieldpost.model"] == "twice"
        assert spans["infer"].parent_span_id == spans["POST /score"].span_id


def test_what_nobody_put_into_the_package_is_named(root: Path) -> None:
    settings = {"oidc_issuer": "https://login.example.org", "oidc_audience": "me"}
    with booted(root, **settings) as server:
        assert server.report["error"]["code"] == "missing_dependency"
        assert "jwt" in server.report["error"]["message"]
        assert server.process.wait(20) == 3


def test_other_work_is_done_once_beside_a_build_and_its_failure_is_its_own(tmp_path: Path) -> None:
    (tmp_path / "score.py").write_text("def init(): pass\ndef run(data): return data\n")
    threads: list[str] = []
    done = threading.Event()

    def meanwhile() -> None:
        threads.append(threading.current_thread().name)
        done.set()
        raise RuntimeError

    with Workspace(tmp_path / "workspace") as workspace:
        package = workspace.packages.build(
            script=tmp_path / "score.py",
            platform="linux/amd64,linux/arm64",
            meanwhile=meanwhile,
        )
        assert done.wait(20)
        assert workspace.packages.describe(package).layers
    assert threads == ["fieldpost-meanwhile"]

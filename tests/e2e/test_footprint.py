"""What a server of one small model holds, with everything switched on that the benchmark has on."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import numpy as np
import onnx
import pytest
import tritonclient.grpc as triton
from onnx import TensorProto, helper

from serve.server.access import keyfile, keys
from tests.support.server import until

if TYPE_CHECKING:
    from collections.abc import Iterator

FIELDPOST = Path(sys.executable).with_name("fieldpost")
MOST_MIB = 80
_READY_S = 30
_REQUESTS = 500
# To compile what is imported takes memory, and is not what a server does that has run before.
_KEEPS_BYTECODE = {"PYTHONDONTWRITEBYTECODE": ""}


def _write_model(path: Path) -> None:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", 4])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", 4])
    graph = helper.make_graph([helper.make_node("Abs", ["x"], ["y"])], "abs", [x], [y])
    opsets = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), path)


class Server:
    """A server in the foreground, and the headers that it asks for."""

    def __init__(self, folder: Path, bytecode: Path) -> None:
        _write_model(folder / "abs.onnx")
        kept, key = keys.make("test", scopes=("infer", "metrics"))
        keyfile.write(folder / "keys.json", keys.KeyFile(keys=(kept,)))
        self.headers = {"authorization": f"Bearer {key}"}
        self._ready = folder / "ready"
        settings = {
            "API_KEYS": folder / "keys.json",
            "RATE_LIMIT": 1_000_000,
            "ACCESS_LOG": folder / "access.log",
            "METRICS": "on",
        }
        named = {f"FIELDPOST_SERVER_{name}": str(value) for name, value in settings.items()}
        self.process = subprocess.Popen(
            [FIELDPOST, "serve", folder / "abs.onnx", "--port", "0", "--ready-file", self._ready],
            stderr=subprocess.DEVNULL,
            env={**os.environ, **named, **_KEEPS_BYTECODE, "PYTHONPYCACHEPREFIX": str(bytecode)},
        )
        until(self._ready.exists, _READY_S)

    @property
    def url(self) -> str:
        return self._ready.read_text().strip()

    def mib(self) -> float:
        """What is resident."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(text.partition("VmRSS:")[2].split()[0]) / 1024


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    bytecode = tmp_path / "bytecode"
    for name in ("first", "second"):
        folder = tmp_path / name
        folder.mkdir()
        running = Server(folder, bytecode)
        if name == "second":
            yield running
        else:
            _ask_over_grpc(running)
        running.process.terminate()
        assert running.process.wait(15) == 0


def _ask_over_grpc(server: Server) -> None:
    tensor = triton.InferInput("x", [1, 4], "FP32")
    tensor.set_data_from_numpy(np.ones((1, 4), np.float32))
    with triton.InferenceServerClient(server.url.removeprefix("http://")) as client:
        answer = client.infer("abs", [tensor], headers=server.headers)
    assert answer is not None
    assert answer.as_numpy("y").tolist() == [[1, 1, 1, 1]]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_server_with_everything_on_is_small(server: Server) -> None:
    held = {"ready": server.mib()}
    with httpx.Client(base_url=server.url, headers=server.headers) as client:
        for _ in range(_REQUESTS):
            assert client.post("/score", json={"data": [[1, 2, 3, -4]]}).status_code == 200
        held["asked"] = server.mib()
        assert client.get("/metrics").status_code == 200
    _ask_over_grpc(server)
    held["asked over gRPC"] = server.mib()
    assert max(held.values()) < MOST_MIB, held

"""An exported model repository in a real tritonserver, and back from there into the registry.

The wheel nvidia-pytriton has no ONNX Runtime backend: one of Triton's Python-based backends stands
in its place, under its name. The benchmarks have installed that wheel, or FIELDPOST_TEST_TRITON=1
lets this test do so. About 20 s.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tritonclient.http as triton

from benchmarks import peer_files, venvs
from serve import Workspace
from tests.support.local import eventually, free_port
from tests.support.onnx_files import doubling

pytestmark = pytest.mark.timeout(300)
BACKEND = """\
import ctypes, json, os, sys
sys.path.insert(0, os.environ["ONNXRUNTIME_SITE"])
import numpy as np
import onnxruntime
import triton_python_backend_utils as triton

{lent}
class TritonPythonModel:
    def initialize(self, given):
        folder = os.path.join(given["model_repository"], given["model_version"])
        self.session = onnxruntime.InferenceSession(os.path.join(folder, "model.onnx"))
    def execute(self, requests):
        return [self.answer(request) for request in requests]
    def answer(self, request):
        feeds = {each.name(): np.array(np.from_dlpack(each)) for each in request.inputs()}
        names = list(request.requested_output_names())
        found = zip(names, self.session.run(names, feeds))
        return triton.InferenceResponse([triton.Tensor.from_dlpack(n, Lent(v)) for n, v in found])
"""


def lent() -> str:
    """How arrays are lent to a Triton that was compiled for numpy 1: as our own base does it."""
    text = (Path(__file__).parents[2] / "dockerfiles/triton/model.py").read_text()
    return text[text.index("class Lent:") : text.index("class TritonPythonModel:")]


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package's model as a repository, labels added."""
    if not peer_files.TRITON.exists():
        if not os.environ.get("FIELDPOST_TEST_TRITON"):
            pytest.skip("no tritonserver: FIELDPOST_TEST_TRITON=1 installs nvidia-pytriton")
        venvs.ensure("pytriton")
    folder = tmp_path_factory.mktemp("triton")
    with Workspace(folder / "workspace") as workspace:
        version = workspace.models.register("twice", doubling(folder / "twice.onnx"))
        package = workspace.packages.build(version)
        workspace.packages.export_triton(package, f"triton:{folder / 'models'}")
        again = workspace.models.register("back", f"triton:{folder / 'models'}")
    assert again.tags["triton/model"] == "twice"
    return folder / "models"


@pytest.fixture(scope="module")
def client(repository: Path) -> Iterator[triton.InferenceServerClient]:
    """Of a tritonserver with that repository."""
    backends = repository.parent / "backends"
    shutil.copytree(peer_files.TRITON / "backends", backends)
    stub = peer_files.TRITON / "python_backend_stubs" / sysconfig.get_python_version()
    shutil.copytree(stub, backends / "python", dirs_exist_ok=True)
    (backends / "onnxruntime").mkdir()
    (backends / "onnxruntime/model.py").write_text(BACKEND.replace("{lent}", lent()))
    with free_port() as port, free_port() as other:
        pass
    libraries = sysconfig.get_config_var("LIBDIR"), peer_files.TRITON_SITE / "nvidia_pytriton.libs"
    environment = os.environ | {
        "LD_LIBRARY_PATH": ":".join(map(str, libraries)),
        "ONNXRUNTIME_SITE": sysconfig.get_path("platlib"),
        "CUDA_VISIBLE_DEVICES": "",
    }
    command = [str(peer_files.TRITON / "bin/tritonserver"), "--model-repository", str(repository)]
    command += ["--backend-directory", str(backends), "--http-address", "127.0.0.1"]
    command += ["--http-port", str(port), "--grpc-port", str(other), "--allow-metrics=false"]
    with (
        (repository.parent / "log").open("w") as log,
        subprocess.Popen(command, env=environment, stdout=log, stderr=log) as server,
        triton.InferenceServerClient(f"127.0.0.1:{port}") as found,
    ):
        try:
            eventually(lambda: is_ready(found, server), timeout_s=60)
            yield found
        finally:
            server.terminate()


def is_ready(client: triton.InferenceServerClient, server: subprocess.Popen[bytes]) -> bool:
    assert server.poll() is None, "it has ended: its log is beside the repository"
    try:
        return bool(client.is_model_ready("twice"))
    except OSError:
        return False


def test_triton_loads_and_answers(client: triton.InferenceServerClient) -> None:
    x = np.array([[0.1, 2.0], [-3e30, 1e-40], [0, 5]], np.float32)
    tensor = triton.InferInput("x", list(x.shape), "FP32")
    tensor.set_data_from_numpy(x)
    assert client.infer("twice", [tensor]).as_numpy("y").tobytes() == (x + x).tobytes()


def test_triton_describes_it_as_we_do(client: triton.InferenceServerClient) -> None:
    found = client.get_model_metadata("twice")
    assert found["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}]
    assert found["outputs"] == [{"name": "y", "datatype": "FP32", "shape": [-1, 2]}]
    assert found["versions"] == ["1"]

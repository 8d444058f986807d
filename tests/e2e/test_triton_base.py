"""The Triton base: a package answers from a real tritonserver as it does from our server.

The tritonserver is the one that nvidia-pytriton's wheel brings, which is large: the benchmarks have
installed it, or FIELDPOST_TEST_TRITON=1 lets this test do so. That Triton was compiled for numpy 1,
with which it cannot exchange text with a package's numpy 2: numbers alone are tried. About 40 s.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import tritonclient.http as triton
from onnx import TensorProto, helper
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from benchmarks import peer_files, venvs
from serve import Workspace
from tests.support import bases, builders
from tests.support.builders import Builder
from tests.support.engines import RunningEngine
from tests.support.local import free_port

DOCKERFILES = Path(__file__).parents[2] / "dockerfiles"
BASE, SERVER, TRITON = (f"fieldpost-tests/{name}:1" for name in ("libpython", "server", "triton"))
pytestmark = pytest.mark.timeout(400)

# The wheel's server where NVIDIA's images have theirs; its libraries where it looks for them.
_SERVER = f"""\
FROM {BASE}
COPY tritonserver /opt/tritonserver
COPY libraries /nvidia_pytriton.libs
"""


@pytest.fixture(scope="module")
def builder(docker_engine: RunningEngine) -> Builder:
    return builders.docker(docker_engine)


@pytest.fixture(scope="module")
def server(builder: Builder, tmp_path_factory: pytest.TempPathFactory) -> str:
    """An image with a tritonserver."""
    if not peer_files.TRITON.exists():
        if not os.environ.get("FIELDPOST_TEST_TRITON"):
            pytest.skip("no tritonserver: FIELDPOST_TEST_TRITON=1 installs nvidia-pytriton")
        venvs.ensure("pytriton")
    try:
        rootfs = bases.base_rootfs("libpython3.11")
    except bases.NoBaseError as error:
        pytest.skip(f"no root filesystem for images: {error}")
    builder.call("import", str(rootfs), BASE)
    folder = tmp_path_factory.mktemp("server")
    home = folder / "tritonserver"
    for name in ("bin", "backends"):
        shutil.copytree(peer_files.TRITON / name, home / name)
    stub = peer_files.TRITON / "python_backend_stubs" / "3.11"
    shutil.copytree(stub, home / "backends" / "python", dirs_exist_ok=True)
    shutil.copytree(peer_files.TRITON_SITE / "nvidia_pytriton.libs", folder / "libraries")
    (folder / "Dockerfile").write_text(_SERVER)
    builder.build(folder, SERVER)
    return SERVER


@pytest.fixture(scope="module")
def base(builder: Builder, server: str) -> str:
    """The base as our Dockerfile makes it."""
    dockerfile = DOCKERFILES / "triton" / "Dockerfile"
    arguments = ("--file", str(dockerfile), "--build-arg", f"TRITON={server}")
    builder.build(DOCKERFILES, TRITON, *arguments)
    return TRITON


def model() -> onnx.ModelProto:
    """Numbers of several kinds in and out."""
    tensors = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 2]),
        helper.make_tensor_value_info("count", TensorProto.INT64, [None, 1]),
        helper.make_tensor_value_info("twice", TensorProto.FLOAT, [None, 2]),
        helper.make_tensor_value_info("many", TensorProto.BOOL, [None, 1]),
    ]
    nodes = [
        helper.make_node("Add", ["x", "x"], ["twice"]),
        helper.make_node("Greater", ["count", "limit"], ["many"]),
    ]
    limit = helper.make_tensor("limit", TensorProto.INT64, [1], [9])
    graph = helper.make_graph(nodes, "both", tensors[:2], tensors[2:], [limit])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


@pytest.fixture(scope="module")
def image(builder: Builder, base: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A package on the base."""
    folder = tmp_path_factory.mktemp("triton")
    onnx.save(model(), folder / "both.onnx")
    with pytest.MonkeyPatch.context() as patch, Workspace(folder / "workspace") as workspace:
        for name, value in builder.environment.items():
            patch.setenv(name, value)
        version = workspace.models.register("both", folder / "both.onnx")
        package = workspace.packages.build(version, python="3.11")
        yield workspace.packages.build_image(package, "docker", base=base).name


@pytest.fixture(scope="module")
def clients(
    builder: Builder, image: str
) -> Iterator[tuple[triton.InferenceServerClient, triton.InferenceServerClient]]:
    """Clients of our server and of Triton, both in containers of one image."""
    with free_port() as other:
        pass
    options = (
        *("--entrypoint", "/opt/fieldpost-triton/serve.py", "--tmpfs", "/tmp:mode=1777"),
        *("--env", "CUDA_VISIBLE_DEVICES="),
    )
    command = ("--http-port", "{port}", "--grpc-port", str(other), "--allow-metrics=false")
    with (
        builder.running(image) as ours,
        builder.running(image, *options, command=command) as theirs,
        triton.InferenceServerClient(f"127.0.0.1:{ours}") as ours_client,
        triton.InferenceServerClient(f"127.0.0.1:{theirs}") as theirs_client,
        warnings.catch_warnings(),
    ):
        yield ours_client, theirs_client


def ask(client: triton.InferenceServerClient, x: Any, counts: Any, **options: bool) -> Any:
    """Both outputs, as JSON or as bytes."""
    inputs = []
    for name, values, kind in (("x", x, np.float32), ("count", counts, np.int64)):
        array = np.array(values, kind)
        inputs.append(triton.InferInput(name, list(array.shape), np_to_triton_dtype(kind)))
        inputs[-1].set_data_from_numpy(array, **options)
    found = client.infer("both", inputs)
    return found.as_numpy("twice").tobytes(), found.as_numpy("many").tolist()


@pytest.mark.parametrize("binary", [False, True])
def test_triton_answers_as_our_server_does(clients: Any, binary: bool) -> None:
    ours, theirs = clients
    x, counts = [[0.1, 2.0], [-3e30, 5.0], [0.0, 1e-40]], [[9], [10], [-(2**60)]]

    answer = ask(theirs, x, counts, binary_data=binary)

    assert answer == ask(ours, x, counts, binary_data=binary)
    assert answer[1] == [[False], [True], [False]]


def test_both_describe_the_same_tensors(clients: Any) -> None:
    ours, theirs = (client.get_model_metadata("both") for client in clients)

    assert theirs["inputs"] == ours["inputs"]
    assert theirs["outputs"] == ours["outputs"]
    assert theirs["versions"] == ours["versions"]


def test_a_bad_request_fails_alone(clients: Any) -> None:
    _, theirs = clients

    with pytest.raises(InferenceServerException, match="rows"):
        ask(theirs, [[0.1, 2.0]], [[1], [2]])
    assert ask(theirs, [[1.0, 2.0]], [[1]])[1] == [[False]]


def test_the_container_runs_as_nobody(builder: Builder, image: str) -> None:
    done = subprocess.run(
        [
            *(builder.engine, "run", "--rm", "--network", "none", "--entrypoint", "python3"),
            *(image, "-c", "import os; print(os.getuid())"),
        ],
        env=dict(builder.environment),
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout.strip() == "65532"

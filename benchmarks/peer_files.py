"""The files that some servers need before they start."""

from __future__ import annotations

import json
import shutil
import sysconfig

from benchmarks.contender import Start
from benchmarks.venvs import PINS, VENVS

TRITON_SITE = VENVS / "pytriton" / "lib" / f"python{sysconfig.get_python_version()}/site-packages"
TRITON = TRITON_SITE / "pytriton" / "tritonserver"


def copy_script(start: Start) -> None:
    """Puts the scoring script and the model into the folder."""
    shutil.copy(PINS / "script.py", start.folder)
    shutil.copy(start.model, start.folder)


def mlserver_files(start: Start, **more: object) -> None:
    """One model, its ports, and no log of requests."""
    http, grpc, other = start.ports
    settings = {
        "host": "127.0.0.1",
        "http_port": http,
        "grpc_port": grpc,
        "metrics_port": other,
        "debug": False,
        **more,
    }
    model = {
        "name": start.model.stem,
        "implementation": "benchmarks.peers.mlserver_runtime.Runtime",
    }
    (start.folder / "settings.json").write_text(json.dumps(settings))
    (start.folder / "model-settings.json").write_text(json.dumps(model))


_TRITON_CONFIG = """
name: "{name}"
backend: "python"
max_batch_size: 64
input [ {{ name: "X" data_type: TYPE_FP32 dims: [ {inputs} ] }} ]
output [
  {{ name: "label" data_type: TYPE_INT64 dims: [ 1 ] reshape: {{ shape: [ ] }} }},
  {{ name: "probabilities" data_type: TYPE_FP32 dims: [ {classes} ] }}
]
instance_group [ {{ count: 1 kind: KIND_CPU }} ]
"""


def mlserver_in_process_files(start: Start) -> None:
    """Inference in the server's own process: on one core that is its fastest."""
    mlserver_files(start, parallel_workers=0)


def triton_files(start: Start) -> None:
    """A repository of one model, and the Python backend with the stub for this interpreter."""
    name = start.model.stem
    inputs, classes = (4, 3) if name == "iris" else (784, 10)
    version = start.folder / "models" / name / "1"
    version.mkdir(parents=True)
    shutil.copy(PINS / "triton_model.py", version / "model.py")
    config = _TRITON_CONFIG.format(name=name, inputs=inputs, classes=classes)
    (version.parent / "config.pbtxt").write_text(config)
    shutil.copytree(TRITON / "backends", start.folder / "backends")
    stub = TRITON / "python_backend_stubs" / sysconfig.get_python_version()
    shutil.copytree(stub, start.folder / "backends" / "python", dirs_exist_ok=True)

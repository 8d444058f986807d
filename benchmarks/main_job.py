"""The main job: how long a person waits, and what it takes.

Each figure is the best of several runs: what the work costs, not what else the machine did. Python
keeps its bytecode between them, as it does where it is installed, but not in this checkout.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from benchmarks.models import make_iris
from benchmarks.results import Row, report

FIELDPOST = str(Path(sys.executable).parent / "fieldpost")
RUNS = 5
BIG = 100_000_000


def keep_bytecode(folder: Path) -> None:
    """Lets all processes that this one starts keep their bytecode in a folder of the run."""
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ["PYTHONPYCACHEPREFIX"] = str(folder)


def timed(command: list[str], **environment: str) -> float:
    begun = time.perf_counter()
    subprocess.run(
        command,
        check=True,
        env=os.environ | environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    return time.perf_counter() - begun


def help_time() -> Row:
    ours = min(timed([FIELDPOST, "--help"]) for _ in range(RUNS * 2))
    python = min(timed([sys.executable, "-c", "pass"]) for _ in range(RUNS * 2))
    row = Row(
        "fieldpost --help", "s", ours, "under 0.15 s", ours < 0.15, {"python -c pass": python}
    )
    row.ratio = ours / python
    return row


def serve_once(model: Path) -> tuple[float, float]:
    """Seconds until the first 200 of the readiness route, and MiB resident then."""
    begun = time.perf_counter()
    process = subprocess.Popen(
        [FIELDPOST, "serve", str(model), "--port", "5093"], stderr=subprocess.DEVNULL
    )
    try:
        while time.perf_counter() - begun < 30:
            try:
                with urllib.request.urlopen("http://127.0.0.1:5093/health/ready", timeout=1):
                    break
            except OSError:
                time.sleep(0.005)
        seconds = time.perf_counter() - begun
        status = Path(f"/proc/{process.pid}/status").read_text()
        resident = next(line for line in status.splitlines() if line.startswith("VmRSS"))
        return seconds, int(resident.split()[1]) / 1024
    finally:
        process.terminate()
        process.wait()


def serve_rows(folder: Path) -> list[Row]:
    model = make_iris(folder)
    measured = [serve_once(model) for _ in range(RUNS)]
    seconds, memory = min(s for s, _ in measured), min(m for _, m in measured)
    return [
        Row("fieldpost serve iris.onnx: ready", "s", seconds, "under 0.6 s", seconds < 0.6),
        Row("fieldpost serve iris.onnx: memory", "MiB", memory, "under 80 MiB", memory < 80),
    ]


def big_model(folder: Path) -> Path:
    """An ONNX file of 100 MB: one matrix product with random weights."""
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    side = int((BIG / 4) ** 0.5)
    weights = np.random.default_rng(0).standard_normal((side, side), dtype="float32")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "big",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, side])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, side])],
        [numpy_helper.from_array(weights, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    path = folder / "big.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def register_rows(folder: Path) -> list[Row]:
    """The whole command; and its work alone, in an open workspace."""
    from serve import Workspace

    model = big_model(folder)
    call, command, peer = [], [], []
    for run in range(RUNS):
        copy = folder / "copy.onnx"
        peer.append(timed(["bash", "-c", f"sha256sum {model} && cp {model} {copy}"]))
        copy.unlink()
        with Workspace(folder / f"open-{run}") as workspace:
            workspace.models.list()
            begun = time.perf_counter()
            workspace.models.register("big", model)
            call.append(time.perf_counter() - begun)
        fresh = folder / f"fresh-{run}"
        arguments = ["model", "register", "big", str(model), "--workspace", str(fresh)]
        command.append(timed([FIELDPOST, *arguments]))
        shutil.rmtree(folder / f"open-{run}")
        shutil.rmtree(fresh)
    other = min(peer)
    rows = []
    for work, best in (
        ("register 100 MB (whole command)", min(command)),
        ("register 100 MB, in an open workspace", min(call)),
    ):
        row = Row(work, "s", best, "at most 2 x sha256sum and cp", best <= 2 * other)
        row.peers, row.ratio = {"sha256sum, cp": other}, best / other
        rows.append(row)
    return rows


def build_rows(folder: Path) -> list[Row]:
    """Packages whose environment's layer is there already, each of a model that is new."""
    from serve import Workspace

    model = make_iris(folder)
    place = folder / "builds"
    command, call = [], []
    with Workspace(place) as workspace:
        workspace.packages.build(workspace.models.register("iris", model))
        for run in range(2 * RUNS):
            changed = folder / f"iris-{run}.onnx"
            changed.write_bytes(model.read_bytes())
            version = workspace.models.register("iris", changed)
            if run % 2:
                command.append(
                    timed([FIELDPOST, "package", "build", version.ref, "--workspace", str(place)])
                )
                continue
            begun = time.perf_counter()
            workspace.packages.build(version)
            call.append(time.perf_counter() - begun)
    return [
        Row(work, "s", best, "under 0.3 s", best < 0.3)
        for work, best in (
            ("package build, unchanged environment (whole command)", min(command)),
            ("package build, unchanged environment, in an open workspace", min(call)),
        )
    ]


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="fieldpost-bench-") as name:
        folder = Path(name)
        keep_bytecode(folder / "bytecode")
        rows = [help_time(), *serve_rows(folder), *register_rows(folder), *build_rows(folder)]
    report("main_job", rows, "onnxruntime", "numpy", "click")


if __name__ == "__main__":
    main()

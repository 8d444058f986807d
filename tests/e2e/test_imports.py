"""Commands that only read, hash and copy import nothing that computes, connects or draws."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = {
    *("numpy", "onnxruntime", "pandas", "sklearn", "onnx"),
    *("sqlalchemy", "psycopg", "httpx", "asyncio", "tenacity", "rich", "yaml"),
}
RUN = """
import json, sys
from serve.cli.main import run
status = run(sys.argv[2:])
with open(sys.argv[1], "w") as file:
    json.dump(sorted({name.partition(".")[0] for name in sys.modules}), file)
sys.exit(status)
"""


def imported(folder: Path, *arguments: str) -> set[str]:
    """The packages that a command has imported at its end."""
    report = folder / "imported.json"
    command = [sys.executable, "-c", RUN, str(report), *arguments]
    workspace = ["--workspace", str(folder / "workspace")]
    done = subprocess.run([*command, *workspace], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(json.loads(report.read_text()))


def write_model(path: Path) -> Path:
    from onnx import TensorProto, helper

    graph = helper.make_graph(
        [helper.make_node("Neg", ["x"], ["y"])],
        "negate",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 2])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    path.write_bytes(model.SerializeToString())
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a workspace that holds a model and its package."""
    folder = tmp_path_factory.mktemp("imports")
    model = write_model(folder / "negate.onnx")
    # The very commands that load a model need their runtime, and no more.
    assert imported(folder, "model", "register", "negate", str(model)) & HEAVY == {
        *("numpy", "onnxruntime")
    }
    imported(folder, "package", "build", "negate")
    return folder


@pytest.mark.parametrize(
    "command",
    [
        ("model", "list", "--tag", "a"),
        ("model", "show", "negate"),
        ("model", "tag", "negate", "a=b"),
        ("env", "list"),
        ("package", "build", "negate"),
        ("package", "list"),
        ("package", "show", "negate"),
        ("deployment", "list"),
        ("workspace", "show"),
        ("workspace", "gc"),
    ],
    ids=lambda command: " ".join(command[:2]),
)
def test_a_command_imports_only_what_it_needs(folder: Path, command: tuple[str, ...]) -> None:
    assert imported(folder, *command) & HEAVY == set()

"""`kill -9` at any write of a build leaves the packages of before, or one more, whole."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from skl2onnx import to_onnx
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

from serve import Workspace
from tests.faults import harness
from tests.folders import names_in

BUILD = """
import sys
from serve import Workspace
with Workspace(sys.argv[1]) as workspace:
    workspace.packages.build("iris:2")
"""


@pytest.fixture
def fresh(tmp_path: Path) -> Callable[[], Path]:
    """Makes a workspace with two versions and the first one's package, always at the same place."""
    x, y = load_iris(return_X_y=True)
    template, place = tmp_path / "template", tmp_path / "workspace"
    with Workspace(template) as workspace:
        for strength in (0.1, 1.0):
            model = LogisticRegression(C=strength, max_iter=500).fit(x, y)
            onnx = to_onnx(model, x[:1].astype("float32"), options={"zipmap": False})
            path = tmp_path / "iris.onnx"
            path.write_bytes(onnx.SerializeToString())
            workspace.models.register("iris", path)
        workspace.packages.build("iris:1")

    def fresh() -> Path:
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(template, place)
        return place

    return fresh


def test_a_build_killed_at_any_write(fresh: Callable[[], Path], tmp_path: Path) -> None:
    harness.require_strace()
    place = fresh()
    with Workspace(place) as workspace:
        wanted = workspace.packages.build("iris:2").digest

    def argv() -> list[str]:
        return [sys.executable, "-c", BUILD, str(fresh())]

    def check(step: harness.Step) -> None:
        with Workspace(place) as workspace:
            found = workspace.packages.list()
            assert sorted(package.model_ref or "" for package in found) in (
                ["iris:1"],
                ["iris:1", "iris:2"],
            )
            for package in found:
                workspace.packages.verify(package)
            workspace.registry.gc()
            assert names_in(workspace.registry.blobs.incoming) == []
            assert workspace.packages.build("iris:2").digest == wanted

    assert len(harness.kill_at_each_write(argv, check)) >= 3

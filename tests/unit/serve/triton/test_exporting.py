"""Packages as Triton's model repositories: what is written, and what is refused."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from scoring.bundle import Bundle, ScriptSpec
from scoring.errors import AlreadyExistsError, PackagingError, StorageFullError, UsageError
from scoring.schema import ModelSchema
from serve import Workspace
from serve.triton import description
from serve.triton.exporting import _require_onnx as require_onnx
from serve.triton.exporting import _write as write_model
from serve.triton.exporting import export_repository
from serve.triton.importing import find
from tests.support.onnx_files import doubling


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    """One for all: the environment's layer takes seconds."""
    with Workspace(tmp_path_factory.mktemp("triton") / "workspace") as opened:
        yield opened


def exported(workspace: Workspace, model: Path, folder: Path, name: str = "twice") -> Path:
    version = workspace.models.register(name, model)
    done = workspace.packages.export_triton(workspace.packages.build(version), f"triton:{folder}")
    assert (done.model, done.version, done.destination) == (name, version.version, str(folder))
    return folder / name / str(done.version)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (TensorProto.FLOAT, "TYPE_FP32"),
        (TensorProto.DOUBLE, "TYPE_FP64"),
        (TensorProto.FLOAT16, "TYPE_FP16"),
        (TensorProto.INT64, "TYPE_INT64"),
        (TensorProto.INT32, "TYPE_INT32"),
    ],
)
def test_a_model_and_its_description(
    workspace: Workspace, tmp_path: Path, kind: int, name: str
) -> None:
    source = doubling(tmp_path / "twice.onnx", kind, ("batch", 2))
    version = exported(workspace, source, tmp_path / "models")
    assert (version / "model.onnx").read_bytes() == source.read_bytes()
    config = description.read(version.parent / "config.pbtxt")
    assert (config.name, config.backend, config.max_batch_size) == ("twice", "onnxruntime", 0)
    assert [str(each) for each in config.version_policy.specific.versions] == [version.name]
    for (tensor,), expected in ((config.input, "x"), (config.output, "y")):
        assert (tensor.name, list(tensor.dims)) == (expected, [-1, 2])
        assert f"data_type: {name}" in str(tensor)
    assert find(version.parent).path == version / "model.onnx"


def test_a_repository_gets_a_model_more(workspace: Workspace, tmp_path: Path) -> None:
    source, models = doubling(tmp_path / "twice.onnx"), tmp_path / "models"
    exported(workspace, source, models)
    exported(workspace, source, models, "again")
    assert {each.name for each in models.iterdir()} == {"twice", "again"}
    package = workspace.packages.get("twice")
    with pytest.raises(AlreadyExistsError, match="twice is there already"):
        workspace.packages.export_triton(package, str(models), kind="triton")


def test_weights_beside_a_model_come_along(workspace: Workspace, tmp_path: Path) -> None:
    weights = onnx.numpy_helper.from_array(np.arange(4000, dtype=np.float32), "w")
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, [None, 4000]) for n in "xy")
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "w"], ["y"])], "g", [x], [y], [weights]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    (tmp_path / "source").mkdir()
    path = tmp_path / "source/big.onnx"
    onnx.save(model, path, save_as_external_data=True, location="big.weights", size_threshold=0)
    version = exported(workspace, path, tmp_path / "models")
    assert (version / "big.weights").read_bytes() == (tmp_path / "source/big.weights").read_bytes()
    assert find(version.parent).path.name == "model.onnx"


@pytest.mark.parametrize(
    ("classes", "labels"),
    [(("high", "größer"), "high\ngrößer\n"), ((0, 1), "0\n1\n"), ((), None), (("a\nb", "c"), None)],
)
def test_labels_are_those_of_the_columns(
    tmp_path: Path, classes: tuple[str | int, ...], labels: str | None
) -> None:
    (tmp_path / "model").mkdir()
    doubling(tmp_path / "model/m.onnx")
    schema = ModelSchema((), (), classes=classes)
    bundle = Bundle("sizes", "onnx", model_path="m.onnx", schema=schema)
    folder = tmp_path / "out"
    folder.mkdir()
    write_model(tmp_path, bundle, 3, folder)
    (output,) = description.read(folder / "config.pbtxt").output
    assert output.label_filename == ("labels.txt" if labels else "")
    written = folder / "labels.txt"
    assert (written.read_text("utf-8") if written.exists() else None) == labels


@pytest.mark.parametrize(
    ("bundle", "reason"),
    [
        (Bundle("m", "script", script=ScriptSpec("score.py")), "a scoring script"),
        (Bundle("m", "sklearn", format="sklearn-skops"), "its format, sklearn-skops"),
    ],
)
def test_packages_that_triton_has_no_backend_for(bundle: Bundle, reason: str) -> None:
    with pytest.raises(PackagingError, match=reason):
        require_onnx(bundle)


def test_tensors_that_triton_does_not_have() -> None:
    zipmap = SimpleNamespace(name="chances", type="seq(map(int64,tensor(float)))", shape=[])
    with pytest.raises(PackagingError, match="'chances' of type seq"):
        description.write("m", 1, [], [zipmap])


def test_places_that_are_none(workspace: Workspace, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="names no folder"):
        export_repository(workspace.registry, "sha256:0", "triton:")
    (tmp_path / "file").write_text("")
    with pytest.raises(AlreadyExistsError, match="is no folder"):
        export_repository(workspace.registry, "sha256:0", f"triton:{tmp_path / 'file'}")


def test_a_full_disk_leaves_the_repository_as_it_was(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = tmp_path / "models"
    exported(workspace, doubling(tmp_path / "twice.onnx"), models)
    version = workspace.models.register("again", tmp_path / "twice.onnx")
    package = workspace.packages.build(version)

    def full(_descriptor: int) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr("serve.triton.exporting.os.fsync", full)
    with pytest.raises(StorageFullError):
        workspace.packages.export_triton(package, f"triton:{models}")
    assert {each.name for each in models.iterdir()} == {"twice"}

"""ONNX models describe themselves; what onnxruntime cannot run says why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper
from sklearn.ensemble import RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from scoring.errors import (
    CorruptModelError,
    ModelFileError,
    ModelNotFoundError,
    UnsupportedModelError,
)
from scoring.formats.base import LoadedModel, Trust
from scoring.formats.detect import detect
from scoring.formats.load import load_original
from scoring.formats.onnx import data_files
from scoring.schema import TensorSpec


def info(name: str, kind: int, shape: list[int | str | None]) -> Any:
    return helper.make_tensor_value_info(name, kind, shape)


def model(
    nodes: list[Any],
    inputs: list[Any],
    outputs: list[Any],
    tensors: list[Any] | None = None,
    **more: Any,
) -> Any:
    graph = helper.make_graph(nodes, "g", inputs, outputs, tensors or [])
    options: dict[str, Any] = {"opset_imports": [helper.make_opsetid("", 17)], "ir_version": 9}
    return helper.make_model(graph, **(options | more))


def unary(op: str, kind: int = TensorProto.FLOAT, **more: Any) -> Any:
    node = helper.make_node(op, ["x"], ["y"], domain=more.pop("domain", ""))
    return model([node], [info("x", kind, ["n", 3])], [info("y", kind, ["n", 3])], **more)


def load(folder: Path, content: Any) -> LoadedModel:
    path = folder / "model.bin"
    path.write_bytes(content if isinstance(content, bytes) else content.SerializeToString())
    return load_original(detect(path), Trust())


def test_labels_and_probabilities(onnx_file: Path, classifier: Any, iris: Any) -> None:
    loaded = load_original(detect(onnx_file), Trust())
    assert loaded.schema.inputs == (TensorSpec("X", "float32", (None, 4)),)
    assert loaded.schema.outputs == (
        TensorSpec("label", "int64", (None,)),
        TensorSpec("probabilities", "float32", (None, 3)),
    )
    answer = loaded.predictor.predict({"X": iris[0].astype(np.float32)})
    np.testing.assert_array_equal(answer["label"], classifier.predict(iris[0]))
    assert {name.split("==")[0] for name in loaded.requirements} == {"numpy", "onnxruntime"}


def test_maps_tell_the_labels(tmp_path: Path, iris: Any) -> None:
    from skl2onnx import to_onnx

    names = np.array(["setosa", "versicolor", "virginica"])[iris[1]]
    fitted = LogisticRegression(max_iter=500).fit(iris[0], names)
    loaded = load(tmp_path, to_onnx(fitted, iris[0][:1].astype(np.float32)))
    assert [spec.dtype for spec in loaded.schema.outputs] == ["string", "map"]
    assert loaded.schema.classes == ("setosa", "versicolor", "virginica")
    answer = loaded.predictor.predict({"X": iris[0][:2].astype(np.float32)})
    assert set(answer[loaded.schema.outputs[1].name][0]) == set(names)


@pytest.mark.parametrize(
    ("estimator", "takes"),
    [
        (LogisticRegression(max_iter=500), False),
        (make_pipeline(SimpleImputer(), LogisticRegression(max_iter=500)), True),
        (RandomForestClassifier(3), True),
    ],
)
def test_missing_values_are_tried_out(
    tmp_path: Path, estimator: Any, takes: bool, iris: Any
) -> None:
    from skl2onnx import to_onnx

    content = to_onnx(estimator.fit(*iris), iris[0][:1].astype(np.float32))
    assert load(tmp_path, content).schema.inputs[0].missing is takes


def test_shapes_are_reported_as_they_are(tmp_path: Path) -> None:
    node = helper.make_node("Relu", ["x"], ["y"])
    cases: list[tuple[list[int | str | None], tuple[int | None, ...]]] = [
        (["batch", 3, "height", None], (None, 3, None, None)),
        ([1, 3, 8, 8], (1, 3, 8, 8)),
        ([], ()),
    ]
    for given, expected in cases:
        fixed = model(
            [node], [info("x", TensorProto.FLOAT, given)], [info("y", TensorProto.FLOAT, given)]
        )
        schema = load(tmp_path, fixed).schema
        assert (schema.inputs[0].shape, schema.outputs[0].shape) == (expected, expected)
        assert schema.inputs[0].missing is False  # Relu passes NaN on


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        (TensorProto.DOUBLE, "float64"),
        (TensorProto.FLOAT16, "float16"),
        (TensorProto.INT32, "int32"),
        (TensorProto.STRING, "string"),
        (TensorProto.BOOL, "bool"),
        (TensorProto.UINT8, "uint8"),
    ],
)
def test_element_types(tmp_path: Path, kind: int, dtype: str) -> None:
    loaded = load(tmp_path, unary("Identity", kind))
    assert loaded.schema.inputs[0].dtype == loaded.schema.outputs[0].dtype == dtype
    value = np.full(
        (2, 3), "é" if dtype == "string" else 1, dtype=object if dtype == "string" else dtype
    )
    assert loaded.predictor.predict({"x": value})["y"].tolist() == value.tolist()


def test_an_input_without_a_shape_is_no_scalar(tmp_path: Path) -> None:
    """Every request but one of a single number would be refused."""
    made = model(
        [helper.make_node("Add", ["one", "x"], ["y"])],
        [info("one", TensorProto.FLOAT, []), helper.make_tensor_value_info("x", 1, None)],
        [info("y", TensorProto.FLOAT, ["n"])],
    )
    with pytest.raises(UnsupportedModelError, match="how many dimensions its input 'x' has"):
        load(tmp_path, made)


def test_a_scalar_is_an_input(tmp_path: Path) -> None:
    made = model(
        [helper.make_node("Add", ["a", "b"], ["y"])],
        [info("a", TensorProto.FLOAT, []), info("b", TensorProto.FLOAT, [2])],
        [info("y", TensorProto.FLOAT, [2])],
    )
    assert [spec.shape for spec in load(tmp_path, made).schema.inputs] == [(), (2,)]


def test_several_inputs_and_outputs_keep_their_order(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Add", ["b", "a"], ["sum"]),
        helper.make_node("Neg", ["b"], ["minus"]),
    ]
    inputs = [info(name, TensorProto.FLOAT, ["n", 2]) for name in ("b", "a")]
    outputs = [info(name, TensorProto.FLOAT, ["n", 2]) for name in ("minus", "sum")]
    loaded = load(tmp_path, model(nodes, inputs, outputs))
    assert [spec.name for spec in loaded.schema.inputs] == ["b", "a"]
    one = np.ones((1, 2), np.float32)
    answer = loaded.predictor.predict({"a": one, "b": 2 * one})
    assert list(answer) == ["minus", "sum"]
    assert answer["sum"].tolist() == [[3, 3]]


@pytest.mark.parametrize(
    ("content", "error", "what"),
    [
        (
            unary("Relu", opset_imports=[helper.make_opsetid("", 99)]),
            UnsupportedModelError,
            "Opset 99",
        ),
        (unary("Relu", ir_version=90), UnsupportedModelError, "IR version"),
        (unary("Nonsense"), UnsupportedModelError, "Nonsense"),
        (
            unary("Magic", domain="my.ops", opset_imports=[helper.make_opsetid("my.ops", 1)]),
            UnsupportedModelError,
            "my.ops:Magic",
        ),
        (unary("Relu", TensorProto.BFLOAT16), UnsupportedModelError, "Relu"),
        (unary("Identity", TensorProto.BFLOAT16), UnsupportedModelError, "bfloat16"),
        (
            model(
                [helper.make_node("Relu", ["nowhere"], ["y"])],
                [info("x", TensorProto.FLOAT, [1])],
                [info("y", TensorProto.FLOAT, [1])],
            ),
            CorruptModelError,
            "nowhere",
        ),
    ],
)
def test_models_that_do_not_run(
    tmp_path: Path, content: Any, error: type[ModelFileError], what: str
) -> None:
    with pytest.raises(error, match=what) as caught:
        load(tmp_path, content)
    assert "/onnxruntime_src/" not in caught.value.message
    assert caught.value.hint


def test_damaged_bytes_in_the_graph(
    tmp_path: Path, onnx_file: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    content = bytearray(onnx_file.read_bytes())
    for at in range(30, 60):
        content[at] = 0xC9
    with pytest.raises(ModelFileError):
        load(tmp_path, bytes(content))
    assert capfd.readouterr() == ("", "")


# ---- external data ---------------------------------------------------------------------------


def external(location: str) -> Any:
    tensor = helper.make_tensor("w", TensorProto.FLOAT, [3, 3], [0.0] * 9)
    tensor.ClearField("float_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("length", "36")):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    shapes = [info(name, TensorProto.FLOAT, ["n", 3]) for name in ("x", "y")]
    return model([node], shapes[:1], shapes[1:], [tensor])


def test_weights_beside_the_model(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(external("weights.bin").SerializeToString())
    np.eye(3, dtype=np.float32).tofile(tmp_path / "weights.bin")
    detection = detect(tmp_path)
    assert data_files(detection.path) == (tmp_path / "weights.bin",)
    row = np.array([[1, 2, 3]], np.float32)
    answer = load_original(detection, Trust()).predictor.predict({"x": row})
    assert answer["y"].tolist() == row.tolist()


def test_weights_that_are_missing_or_outside(tmp_path: Path) -> None:
    (tmp_path / "outside.bin").write_bytes(bytes(36))
    folder = tmp_path / "m"
    folder.mkdir()
    with pytest.raises(ModelNotFoundError, match=r"weights\.bin"):
        load(folder, external("weights.bin"))
    for location in ("../outside.bin", str(tmp_path / "outside.bin"), "a/../../outside.bin"):
        with pytest.raises(CorruptModelError, match="outside its folder"):
            load(folder, external(location))
    (folder / "link.bin").symlink_to(tmp_path / "outside.bin")
    with pytest.raises(CorruptModelError, match="outside its folder"):
        load(folder, external("link.bin"))

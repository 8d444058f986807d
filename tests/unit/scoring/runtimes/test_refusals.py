"""What a model refuses is told with the row that it refuses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from scoring.errors import InputError
from scoring.formats.onnx import describe
from scoring.runtimes.onnx import OnnxPredictor, open_session
from scoring.runtimes.refusals import first_refused, is_refusal, refusal
from scoring.schema import ModelSchema, TensorSpec

if TYPE_CHECKING:
    from pathlib import Path

    from scoring.runtimes.base import Arrays

OUT = (TensorSpec("y", "float32", (None,)),)
MATRIX = ModelSchema((TensorSpec("x", "float32", (None, 1)),), OUT)
TABLE = ModelSchema(
    (
        TensorSpec("city", "string", (None, 1)),
        TensorSpec("age", "float32", (None, 1)),
        TensorSpec("note", "string", (None, 1), unused=True),
    ),
    OUT,
    layout="table",
)


def answer(inputs: Arrays) -> Any:
    if (inputs["x"] < 0).any():
        raise ValueError("negative")


@pytest.mark.parametrize("rows", [1, 2, 3, 7, 64])
def test_the_first_refused_row_is_found_wherever_it_is(rows: int) -> None:
    for bad in range(rows):
        x = np.zeros((rows, 1), np.float32)
        x[bad:] = -1
        assert first_refused({"x": x}, MATRIX, answer) == bad


def test_a_batch_of_fixed_size_has_no_row_to_name() -> None:
    fixed = ModelSchema((TensorSpec("x", "float32", (2, 1)),), OUT)
    x = np.full((2, 1), -1, np.float32)
    assert first_refused({"x": x}, fixed, answer) is None
    assert refusal("negative", {"x": x}, fixed, answer).where == ""


def test_an_unknown_category_shows_the_cells_of_its_row() -> None:
    inputs = {
        "city": np.array([["Ulm"], ["Atlantis"]], dtype=object),
        "age": np.array([[1.0], [2.0]], np.float32),
        "note": np.array([["a"], ["b"]], dtype=object),
    }

    def look_up(part: Arrays) -> None:
        if "Atlantis" in part["city"]:
            raise RuntimeError("Unknown Category and zeros = 0.")

    error = refusal("Unknown Category and zeros = 0.", inputs, TABLE, look_up)
    assert error.message == (
        "Row 1 holds a category that the model was not trained on (city='Atlantis', age=2.0)."
    )
    assert error.where == "row 1"
    named = refusal("Found unknown categories ['Atlantis']", inputs, TABLE, look_up)
    assert named.message.endswith("Found unknown categories ['Atlantis'].")


def graph(node: str, inputs: dict[str, list[Any]], **weights: list[int]) -> Any:
    """A session of one node whose outputs and dimensions are free."""
    kinds = {"b": TensorProto.INT64, "text": TensorProto.STRING}
    given = [
        helper.make_tensor_value_info(name, kinds.get(name, TensorProto.FLOAT), dims)
        for name, dims in inputs.items()
    ]
    fixed = [
        helper.make_tensor(name, TensorProto.FLOAT, dims, np.zeros(dims).ravel())
        for name, dims in weights.items()
    ]
    op, _, more = node.partition(":")
    options = dict([more.split("=")]) if more else {}
    made = helper.make_node(
        op, [*inputs, *weights], ["y"], **{k: int(v) for k, v in options.items()}
    )
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    whole = helper.make_graph([made], "g", given, [out], fixed)
    opsets = [helper.make_opsetid("", 17)]
    return helper.make_model(whole, opset_imports=opsets, ir_version=8).SerializeToString()


FREE = ["n", "m"]


@pytest.mark.parametrize(
    ("model", "sent"),
    [
        pytest.param(
            graph("Conv", {"a": ["n", "c", "h", "w"]}, k=[4, 3, 3, 3]),
            {"a": np.ones((1, 8, 8, 3), np.float32)},
            id="channels in the wrong place",
        ),
        pytest.param(
            graph("Conv", {"a": ["n", "c", "h", "w"]}, k=[4, 3, 3, 3]),
            {"a": np.ones((1, 3, 2, 2), np.float32)},
            id="a picture that is too small",
        ),
        pytest.param(
            graph("Add", {"a": FREE, "c": ["n", "k"]}),
            {"a": np.ones((2, 3), np.float32), "c": np.ones((2, 4), np.float32)},
            id="inputs that do not meet",
        ),
        pytest.param(
            graph("Gemm", {"a": FREE}, k=[4, 3]), {"a": np.ones((2, 5), np.float32)}, id="columns"
        ),
        pytest.param(
            graph("Tile", {"a": FREE, "b": [2]}),
            {"a": np.ones((1, 2), np.float32), "b": np.array([-1, 1])},
            id="a number of times that cannot be",
        ),
        pytest.param(
            graph(f"Cast:to={TensorProto.FLOAT}", {"text": ["n"]}),
            {"text": np.array(["1.5", "one"], object)},
            id="text that is no number",
        ),
    ],
)
def test_what_onnxruntime_cannot_do_with_an_input_is_the_senders_to_mend(
    tmp_path: Path, model: bytes, sent: Arrays
) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(model)
    session = open_session(path)
    predictor = OnnxPredictor(session, describe(session, path))
    with pytest.raises(InputError, match="The model refuses the input"):
        predictor.predict(sent)


def test_a_broken_graph_is_no_refusal() -> None:
    assert is_refusal("indices element out of data bounds, idx=9 must be within [-5,4]")
    assert not is_refusal("Could not allocate memory")

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from scoring.compilation.graph import GRAPH_NAME, finish, input_names
from scoring.compilation.quiet import ConversionError
from scoring.schema import ModelSchema, TensorSpec


def _model(label: str = "label", doc: str = "") -> Any:
    """Takes two columns; answers whether their sum is positive, as (rows, 1), and the sum."""
    one, two = input_names(2)
    nodes = [
        helper.make_node("Add", [one, two], ["sum"], name=f"node-{doc}", doc_string=doc),
        helper.make_node("Greater", ["sum", "zero"], [label]),
    ]
    column = [None, 1]
    graph = helper.make_graph(
        nodes,
        f"graph-{doc}",
        # The other way round than the schema has them.
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, column) for name in (two, one)],
        [
            helper.make_tensor_value_info(label, TensorProto.BOOL, column),
            helper.make_tensor_value_info("sum", TensorProto.FLOAT, column),
        ],
        [helper.make_tensor("zero", TensorProto.FLOAT, [], [0.0])],
        doc_string=doc,
    )
    return helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", 18), helper.make_opsetid("", 21)],
        doc_string=doc,
        producer_name="test",
    )


def _schema(*names: str, label: str = "predictions") -> ModelSchema:
    return ModelSchema(
        inputs=tuple(TensorSpec(name, "float64", (None, 1)) for name in names),
        outputs=(TensorSpec(label, "int64", (None,)), TensorSpec("margin", "float64", (None, 1))),
        layout="table",
        classes=(0, 1),
    )


def test_outputs_take_the_schemas_names_ranks_and_label_types() -> None:
    content, schema = finish(_model(), _schema("a", "b"))
    onnx.checker.check_model(onnx.load_from_string(content))
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    assert [node.name for node in session.get_inputs()] == ["a", "b"]
    labels, margins = session.run(
        ["predictions", "margin"],
        {"a": np.array([[1], [2]], np.float32), "b": np.array([[1], [-3]], np.float32)},
    )
    assert labels.tolist() == [1, 0]
    assert labels.dtype == np.int64
    assert margins.tolist() == [[2.0], [-1.0]]
    assert [spec.dtype for spec in schema.inputs] == ["float32", "float32"]
    assert [spec.dtype for spec in schema.outputs] == ["int64", "float32"]
    assert schema.classes == (0, 1)


def test_columns_may_be_called_like_values_inside_the_graph() -> None:
    content, _ = finish(_model(), _schema("sum", "label"))
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    feeds = {name: np.ones((1, 1), np.float32) for name in ("sum", "label")}
    assert session.run(["margin"], feeds)[0].tolist() == [[2.0]]


def test_bytes_do_not_depend_on_names_and_texts_inside() -> None:
    one, _ = finish(_model("label", "made on Monday"), _schema("a", "b"))
    two, _ = finish(_model("label_7", "made on Tuesday"), _schema("a", "b"))
    assert one == two
    model = onnx.load_from_string(one)
    assert model.graph.name == GRAPH_NAME
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 21)]


def test_an_input_called_like_an_output_is_refused() -> None:
    with pytest.raises(ConversionError, match="'predictions'"):
        finish(_model(), _schema("a", "predictions"))


def test_a_graph_without_an_input_of_the_schema_is_refused() -> None:
    with pytest.raises(ConversionError, match="2 of 3 inputs"):
        finish(_model(), _schema("a", "b", "c"))

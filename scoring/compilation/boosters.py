"""Compiles the native boosters of XGBoost and LightGBM.

Boosters of numeric splits are written as they are, with thresholds that stay doubles. The others
(categories, linear boosters) are left to onnxmltools.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from scoring.compilation import forests, lightgbm_trees, xgboost_trees
from scoring.compilation.forests import Forest
from scoring.compilation.graph import ML_OPSET, OPSET, input_names
from scoring.compilation.quiet import ConversionError
from scoring.formats.base import LoadedModel

_TOOLS_OPSET = 15  # the newest one that onnxmltools takes for boosters
_ELEMENTS = {"float32": TensorProto.FLOAT, "float64": TensorProto.DOUBLE}


def convert(loaded: LoadedModel, floats: str) -> tuple[Any, str]:
    """Converts a booster that takes one matrix.

    Args:
        loaded: An XGBoost or LightGBM model.
        floats: The element type of the input.

    Returns:
        The `onnx.ModelProto`, with the inputs that `graph.input_names` names, and what made it.

    Raises:
        ConversionError: It takes a table, which only its own library encodes.
        Exception: Whatever onnxmltools raises for a booster that it does not know.
    """
    if loaded.schema.layout == "table":
        raise ConversionError("Columns of categories are encoded by the model's own library only.")
    xgboost = loaded.detection.runtime == "xgboost"
    reader = xgboost_trees.read_booster if xgboost else lightgbm_trees.read_booster
    forest = reader(loaded.model)
    if forest is None:
        return _convert_with_tools(loaded, floats)
    return _write(loaded, forest, floats), f"onnx {onnx.__version__}"


class _GraphNodes:
    """Nodes of a graph under construction; see `forests.Nodes`."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.initializers: list[Any] = []

    def add(self, op_type: str, inputs: list[str], **attributes: Any) -> str:
        output = f"n{len(self.nodes)}"
        self.nodes.append(helper.make_node(op_type, inputs, [output], **attributes))
        return output

    def constant(self, value: NDArray[Any]) -> str:
        name = f"c{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(value, name))
        return name


def _write(loaded: LoadedModel, forest: Forest, floats: str) -> Any:
    nodes = _GraphNodes()
    (source,) = input_names(1)
    outputs = _outputs(loaded, forest, nodes, source)
    (spec,) = loaded.schema.inputs
    graph = helper.make_graph(
        nodes.nodes,
        "fieldpost",
        [helper.make_tensor_value_info(source, _ELEMENTS[floats], list(spec.shape))],
        outputs,
        nodes.initializers,
    )
    versions = [helper.make_opsetid("", OPSET), helper.make_opsetid("ai.onnx.ml", ML_OPSET)]
    return helper.make_model(graph, opset_imports=versions, producer_name="fieldpost")


def _outputs(loaded: LoadedModel, forest: Forest, nodes: _GraphNodes, source: str) -> list[Any]:
    classes = np.array(loaded.schema.classes, dtype=np.int64)
    rows = [None, None]
    if loaded.schema.outputs[0].dtype != "int64" or not classes.size:
        values = forests.add_values(nodes, forest, source)
        return [helper.make_tensor_value_info(values, TensorProto.FLOAT, rows)]
    if _answers_sign(loaded):
        values = forests.add_values(nodes, forest, source)
        positive = nodes.add("Greater", [values, nodes.constant(np.array(0.0, np.float32))])
        return [helper.make_tensor_value_info(positive, TensorProto.BOOL, rows)]
    probabilities = forests.add_probabilities(nodes, forest, source)
    labels = forests.add_labels(nodes, probabilities, classes)
    return [
        helper.make_tensor_value_info(labels, TensorProto.INT64, [None]),
        helper.make_tensor_value_info(probabilities, TensorProto.FLOAT, rows),
    ]


def _answers_sign(loaded: LoadedModel) -> bool:
    """Whether the label is the sign of a sum, with no probabilities beside it."""
    return len(loaded.schema.outputs) == 1 and loaded.schema.classes == (0, 1)


def _convert_with_tools(loaded: LoadedModel, floats: str) -> tuple[Any, str]:
    import onnxmltools  # noqa: PLC0415 - late: slow to import, and seldom needed
    from onnxmltools.convert.common.data_types import (  # noqa: PLC0415
        DoubleTensorType,
        FloatTensorType,
    )

    factory = FloatTensorType if floats == "float32" else DoubleTensorType
    (name,), (spec,) = input_names(1), loaded.schema.inputs
    arguments: dict[str, Any] = {
        "initial_types": [(name, factory(list(spec.shape)))],
        "target_opset": _TOOLS_OPSET,
    }
    if loaded.detection.runtime == "xgboost":
        with _without_names(loaded.model):
            model = onnxmltools.convert_xgboost(loaded.model, **arguments)
    else:
        model = onnxmltools.convert_lightgbm(loaded.model, zipmap=False, **arguments)
    return model, f"onnxmltools {onnxmltools.__version__}"


@contextlib.contextmanager
def _without_names(booster: Any) -> Iterator[None]:
    """Takes the names off: onnxmltools takes features called f0, f1 ... only."""
    names = booster.feature_names
    booster.feature_names = None
    try:
        yield
    finally:
        booster.feature_names = names

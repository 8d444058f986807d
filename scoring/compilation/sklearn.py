"""Compiles scikit-learn estimators, and the boosters inside them, with skl2onnx.

Imported only where a scikit-learn model is compiled.
"""

from __future__ import annotations

from typing import Any, Literal

import skl2onnx
from sklearn.base import is_classifier
from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType, StringTensorType

from scoring.compilation.converters import CONVERTERS, SHAPES, register_boosters
from scoring.compilation.graph import ML_OPSET, OPSET, input_names
from scoring.compilation.rewrite import rewritten
from scoring.schema import ModelSchema, TensorSpec

FloatName = Literal["float32", "float64"]

_TYPES = {"float32": FloatTensorType, "float64": DoubleTensorType}
CONVERTER = f"skl2onnx {skl2onnx.__version__}"


def convert(model: Any, schema: ModelSchema, floats: FloatName) -> Any:
    """Converts an estimator or pipeline.

    Args:
        model: The fitted estimator.
        schema: What it takes; every numeric input becomes `floats`.
        floats: The element type of the numeric inputs.

    Returns:
        The `onnx.ModelProto`, with the inputs that `graph.input_names` names.

    Raises:
        Exception: Whatever the converters raise for a model that they do not know.
    """
    names = input_names(len(schema.inputs))
    types = [
        (name, _input_type(spec, floats)) for name, spec in zip(names, schema.inputs, strict=True)
    ]
    register_boosters(model)
    with rewritten(model):
        try:
            return _convert(model, types, {id(model): {"zipmap": False}})
        except NameError:  # how skl2onnx says that the estimator has no such option
            return _convert(model, types, None)


def _convert(model: Any, types: list[tuple[str, Any]], options: Any) -> Any:
    return skl2onnx.convert_sklearn(
        model,
        name="fieldpost",
        initial_types=types,
        target_opset={"": OPSET, "ai.onnx.ml": ML_OPSET},
        options=options if is_classifier(model) else None,
        custom_conversion_functions=CONVERTERS,
        custom_shape_calculators=SHAPES,
    )


def _input_type(spec: TensorSpec, floats: FloatName) -> Any:
    factory = StringTensorType if spec.dtype == "string" else _TYPES[floats]
    return factory(list(spec.shape))

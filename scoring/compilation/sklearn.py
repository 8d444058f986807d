"""Compiles scikit-learn estimators, and the boosters inside them, with skl2onnx.

Imported only where a scikit-learn model is compiled.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import skl2onnx
from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType, StringTensorType
from sklearn.base import is_classifier
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.pipeline import Pipeline
from sklearn.svm import LinearSVC

from scoring.compilation.converters import CONVERTERS, SHAPES, register_boosters
from scoring.compilation.graph import ML_OPSET, OPSET, input_names
from scoring.compilation.rewrite import rewritten
from scoring.compilation.walk import estimators
from scoring.schema import ModelSchema, TensorSpec

FloatName = Literal["float32", "float64"]

_TYPES = {"float32": FloatTensorType, "float64": DoubleTensorType}
_SKLEARN_WORD = r"(?u)\b\w\w+\b"
_ONNX_WORD = r"[\p{L}\p{N}_]{2,}"
CONVERTER = f"skl2onnx {skl2onnx.__version__}"


def convert(model: Any, schema: ModelSchema, floats: FloatName) -> Any:
    """Converts an estimator or pipeline.

    Args:
        model: The fitted estimator.
        schema: What it takes; every numeric input becomes `floats` to the converters.
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
        return skl2onnx.convert_sklearn(
            model,
            name="fieldpost",
            initial_types=types,
            target_opset={"": OPSET, "ai.onnx.ml": ML_OPSET},
            options=_options(model),
            custom_conversion_functions=CONVERTERS,
            custom_shape_calculators=SHAPES,
        )


def _input_type(spec: TensorSpec, floats: FloatName) -> Any:
    factory = StringTensorType if spec.dtype == "string" else _TYPES[floats]
    return factory(list(spec.shape))


def _options(model: Any) -> dict[int, dict[str, Any]]:
    """Probabilities as a matrix, and texts cut into words as scikit-learn does."""
    options: dict[int, dict[str, Any]] = {}
    for answering in _answering(model):
        if is_classifier(answering):
            options[id(answering)] = _classifier_options(answering)
    for estimator in estimators(model):
        if isinstance(estimator, CountVectorizer):
            options[id(estimator)] = _text_options(estimator)
    return options


def _answering(model: Any) -> Iterator[Any]:
    """The estimators that skl2onnx asks for options of the answer, down to the innermost."""
    while model is not None:
        if isinstance(model, Pipeline):
            model = model.steps[-1][1]
        else:
            yield model
            model = getattr(model, "best_estimator_", None)


def _classifier_options(model: Any) -> dict[str, Any]:
    """Linear support vector machines know no `zipmap`, yet need some option in a pipeline."""
    return {"raw_scores": False} if type(model) is LinearSVC else {"zipmap": False}


def _text_options(vectorizer: CountVectorizer) -> dict[str, Any]:
    """What the converter would else guess.

    The default locale, en_US, is missing on many machines, and then the graph does not load.
    """
    options = {"locale": "C"}
    if vectorizer.analyzer == "word" and vectorizer.token_pattern == _SKLEARN_WORD:
        options["tokenexp"] = _ONNX_WORD
    return options

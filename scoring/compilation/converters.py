"""Converters of our own, for use within skl2onnx, where its own are missing or less exact."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from skl2onnx import update_registered_converter
from skl2onnx.common._registration import get_converter
from skl2onnx.common.shape_calculator import (
    calculate_linear_classifier_output_shapes,
    calculate_linear_regressor_output_shapes,
)
from sklearn.base import is_classifier
from sklearn.ensemble import IsolationForest
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import OrdinalEncoder, PolynomialFeatures

from scoring.compilation import forests, lightgbm_trees, sklearn_trees, transforms, xgboost_trees
from scoring.compilation.containers import ContainerNodes
from scoring.compilation.walk import estimators

Converter = Callable[[Any, Any, Any], None]


def convert_forest(scope: Any, operator: Any, container: Any) -> None:
    """Converts a scikit-learn estimator made of trees; those it does not know, skl2onnx's way."""
    forest = sklearn_trees.read_forest(operator.raw_operator)
    if forest is None:
        get_converter(operator.type)(scope, operator, container)
        return
    write_forest(scope, operator, container, forest)


def write_forest(scope: Any, operator: Any, container: Any, forest: forests.Forest) -> None:
    """Adds a forest's nodes, and ties them to the outputs that skl2onnx expects."""
    nodes = ContainerNodes(scope, container)
    source = operator.inputs[0].full_name
    outputs = operator.outputs
    if not is_classifier(operator.raw_operator):
        nodes.tie(forests.add_values(nodes, forest, source), outputs[0])
        return
    probabilities = forests.add_probabilities(nodes, forest, source)
    classes = _class_array(operator.raw_operator.classes_)
    nodes.add_named(
        "Identity", [forests.add_labels(nodes, probabilities, classes)], outputs[0].full_name
    )
    nodes.tie(probabilities, outputs[1])


def _class_array(classes: NDArray[Any]) -> NDArray[Any]:
    if classes.dtype.kind in "biuf":
        return classes.astype(np.int64)
    return np.array([str(label) for label in classes], dtype=object)


def convert_booster(scope: Any, operator: Any, container: Any) -> None:
    """Converts the estimators of XGBoost and LightGBM that stand in pipelines."""
    model = operator.raw_operator
    forest = _booster_forest(model)
    if forest is not None:
        write_forest(scope, operator, container, forest)
    elif hasattr(model, "get_booster"):
        from onnxmltools.convert.xgboost.operator_converters import XGBoost  # noqa: PLC0415 - late

        XGBoost.convert_xgboost(scope, operator, container)
    else:
        from onnxmltools.convert.lightgbm.operator_converters import LightGbm  # noqa: PLC0415

        LightGbm.convert_lightgbm(scope, operator, container)


def _booster_forest(model: Any) -> forests.Forest | None:
    if hasattr(model, "booster_"):
        return lightgbm_trees.read_booster(model.booster_)
    missing = getattr(model, "missing", None)
    if isinstance(missing, float) and np.isnan(missing):
        return xgboost_trees.read_booster(model.get_booster())
    return None


def register_boosters(model: Any) -> None:
    """Tells skl2onnx of the booster classes inside an estimator, which it does not know."""
    for estimator in estimators(model):
        kind = type(estimator)
        if hasattr(kind, "booster_") or hasattr(kind, "get_booster"):
            classifies = is_classifier(estimator)
            update_registered_converter(
                kind,
                f"Fieldpost{kind.__module__.split('.', maxsplit=1)[0]}{kind.__name__}",
                calculate_linear_classifier_output_shapes
                if classifies
                else calculate_linear_regressor_output_shapes,
                convert_booster,
                overwrite=True,
                options={"zipmap": [True, False, "columns"], "nocl": [True, False]}
                if classifies
                else None,
            )


def convert_isolation(scope: Any, operator: Any, container: Any) -> None:
    """Converts an isolation forest: rows that end after short paths are outliers (-1)."""
    model = operator.raw_operator
    forest = sklearn_trees.read_isolation_forest(model)
    nodes = ContainerNodes(scope, container)
    depths = forests.add_sums(nodes, forest, operator.inputs[0].full_name)
    # Compared as depths: a row that set the threshold itself is to be no outlier.
    shortest = nodes.constant(np.array(-np.log2(-model.offset_), np.float32))
    labels = nodes.add(
        "Where",
        [
            nodes.add("Less", [depths, shortest]),
            nodes.constant(np.array(-1, np.int64)),
            nodes.constant(np.array(1, np.int64)),
        ],
    )
    nodes.add_named("Identity", [labels], operator.outputs[0].full_name)
    two = nodes.constant(np.array(2.0, np.float32))
    anomaly = nodes.add("Pow", [two, nodes.add("Neg", [depths])])
    offset = nodes.constant(np.array(model.offset_, np.float32))
    scores = nodes.add("Sub", [nodes.add("Neg", [anomaly]), offset])
    nodes.tie(scores, operator.outputs[1])


CONVERTERS: dict[type, Converter] = {
    **dict.fromkeys(sklearn_trees.TYPES, convert_forest),
    IsolationForest: convert_isolation,
    SimpleImputer: transforms.convert_imputer,
    PolynomialFeatures: transforms.convert_polynomial,
    OrdinalEncoder: transforms.convert_ordinal,
}
SHAPES: dict[type, Callable[[Any], None]] = {SimpleImputer: transforms.imputer_shape}

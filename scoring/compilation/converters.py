"""Converters of our own, for use within skl2onnx, where its own are missing or less exact."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper
from skl2onnx import update_registered_converter
from skl2onnx.common._registration import get_converter, get_shape_calculator
from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType, guess_proto_type
from skl2onnx.common.shape_calculator import (
    calculate_linear_classifier_output_shapes,
    calculate_linear_regressor_output_shapes,
)
from sklearn.base import is_classifier
from sklearn.impute import SimpleImputer

from scoring.compilation import forests, lightgbm_trees, sklearn_trees, xgboost_trees
from scoring.compilation.walk import estimators

Converter = Callable[[Any, Any, Any], None]


class ContainerNodes:
    """Adds nodes to the container that skl2onnx gives to a converter."""

    def __init__(self, scope: Any, container: Any) -> None:
        self._scope = scope
        self._container = container

    def add(self, op_type: str, inputs: list[str], **attributes: Any) -> str:
        """See `forests.Nodes`."""
        output = self._scope.get_unique_variable_name("value")
        self.add_named(op_type, inputs, output, **attributes)
        return str(output)

    def add_named(self, op_type: str, inputs: list[str], output: str, **attributes: Any) -> None:
        """Adds a node whose output has a name already."""
        domain = attributes.pop("domain", "")
        self._container.add_node(
            op_type,
            inputs,
            [output],
            op_domain=domain,
            op_version=3 if domain else None,
            name=self._scope.get_unique_operator_name(op_type),
            **attributes,
        )

    def constant(self, value: NDArray[Any]) -> str:
        """See `forests.Nodes`."""
        name = self._scope.get_unique_variable_name("constant")
        code = (
            TensorProto.STRING
            if value.dtype == object
            else helper.np_dtype_to_tensor_dtype(value.dtype)
        )
        self._container.add_initializer(name, code, list(value.shape), value.ravel().tolist())
        return str(name)


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
        _tie(nodes, forests.add_values(nodes, forest, source), outputs[0])
        return
    probabilities = forests.add_probabilities(nodes, forest, source)
    classes = _class_array(operator.raw_operator.classes_)
    nodes.add_named(
        "Identity", [forests.add_labels(nodes, probabilities, classes)], outputs[0].full_name
    )
    _tie(nodes, probabilities, outputs[1])


def _tie(nodes: ContainerNodes, name: str, variable: Any) -> None:
    """Numbers leave in the element type that skl2onnx has declared."""
    nodes.add_named("Cast", [name], variable.full_name, to=guess_proto_type(variable.type))


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


def convert_imputer(scope: Any, operator: Any, container: Any) -> None:
    """Converts an imputer of numbers in any precision; one of strings, skl2onnx's way."""
    model = operator.raw_operator
    if not _imputes_numbers(operator):
        get_converter(operator.type)(scope, operator, container)
        return
    nodes = ContainerNodes(scope, container)
    code = guess_proto_type(operator.outputs[0].type)
    element = helper.tensor_dtype_to_np_dtype(code)
    names = [nodes.add("Cast", [variable.full_name], to=code) for variable in operator.inputs]
    values = names[0] if len(names) == 1 else nodes.add("Concat", names, axis=1)
    missing = nodes.add("IsNaN", [values])
    statistics = nodes.constant(model.statistics_.astype(element)[None, :])
    parts = [nodes.add("Where", [missing, statistics, values])]
    if model.add_indicator:
        chosen = nodes.constant(model.indicator_.features_.astype(np.int64))
        parts.append(nodes.add("Cast", [nodes.add("Gather", [missing, chosen], axis=1)], to=code))
    nodes.add_named("Concat", parts, operator.outputs[0].full_name, axis=1)


def _imputes_numbers(operator: Any) -> bool:
    """Whether NaN is replaced by numbers, in columns that all stay."""
    model = operator.raw_operator
    known = isinstance(operator.outputs[0].type, FloatTensorType | DoubleTensorType)
    is_nan = isinstance(model.missing_values, float) and np.isnan(model.missing_values)
    numeric = model.statistics_.dtype.kind == "f" and not np.isnan(model.statistics_).any()
    return known and is_nan and numeric


def imputer_shape(operator: Any) -> None:
    """The shape calculator of `convert_imputer`."""
    get_shape_calculator(operator.type)(operator)
    model = operator.raw_operator
    width = len(model.statistics_) + (len(model.indicator_.features_) if model.add_indicator else 0)
    operator.outputs[0].type.shape = [operator.inputs[0].get_first_dimension(), width]


CONVERTERS: dict[type, Converter] = {
    **dict.fromkeys(sklearn_trees.TYPES, convert_forest),
    SimpleImputer: convert_imputer,
}
SHAPES: dict[type, Callable[[Any], None]] = {SimpleImputer: imputer_shape}

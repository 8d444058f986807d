"""Converters of transformers, for use within skl2onnx, where its own are missing or wrong."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import helper
from skl2onnx.common._registration import get_converter, get_shape_calculator
from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType, guess_proto_type

from scoring.compilation.containers import ContainerNodes


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


def convert_polynomial(scope: Any, operator: Any, container: Any) -> None:
    """Converts polynomial features in any precision, as products of columns."""
    model = operator.raw_operator
    nodes = ContainerNodes(scope, container)
    code = guess_proto_type(operator.outputs[0].type)
    values = nodes.add("Cast", [operator.inputs[0].full_name], to=code)
    element = helper.tensor_dtype_to_np_dtype(code)
    one = nodes.constant(np.ones((1, 1), dtype=element))
    zero = nodes.constant(np.zeros((1, 1), dtype=element))
    first = nodes.add("Gather", [values, nodes.constant(np.array([0], np.int64))], axis=1)
    ones = nodes.add("Add", [nodes.add("Mul", [first, zero]), one])
    columns = nodes.add("Concat", [ones, values], axis=1)
    product = ""
    for factor in _factors(model.powers_):
        chosen = nodes.add("Gather", [columns, nodes.constant(factor)], axis=1)
        product = nodes.add("Mul", [product, chosen]) if product else chosen
    nodes.add_named("Identity", [product], operator.outputs[0].full_name)


def _factors(powers: Any) -> list[Any]:
    """For each factor of the products, the column that it takes: 0 for one, then the inputs."""
    degree = max(1, int(powers.sum(axis=1).max()))
    chosen = np.zeros((len(powers), degree), dtype=np.int64)
    for row, exponents in enumerate(powers):
        columns = np.repeat(np.arange(1, len(exponents) + 1), exponents)
        chosen[row, : len(columns)] = columns
    return list(chosen.T)

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


def convert_ordinal(scope: Any, operator: Any, container: Any) -> None:
    """Converts an encoder that refuses unknown categories; all others, skl2onnx's way.

    The table that skl2onnx makes has a code for everything. Here the categories are told apart by
    ONNX's one-hot encoder, which fails where none matches.
    """
    model = operator.raw_operator
    keys = [_category_keys(categories) for categories in model.categories_]
    if model.handle_unknown != "error" or None in keys or model._infrequent_enabled:  # noqa: SLF001
        get_converter(operator.type)(scope, operator, container)
        return
    nodes = ContainerNodes(scope, container)
    columns = [
        nodes.add("Gather", [variable.full_name, nodes.constant(np.array([n], np.int64))], axis=1)
        for variable in operator.inputs
        for n in range(variable.get_second_dimension())
    ]
    codes = [_code(nodes, *pair) for pair in zip(columns, keys, strict=True)]
    code = guess_proto_type(operator.outputs[0].type)
    found = nodes.add("Concat", codes, axis=1)
    nodes.add_named("Cast", [found], operator.outputs[0].full_name, to=code)


def _category_keys(categories: Any) -> dict[str, list[Any]] | None:
    """The categories as an attribute of the one-hot encoder, where it can tell them apart."""
    values = categories.tolist()
    if categories.dtype.kind in "iu":
        return {"cats_int64s": values}
    if values and all(isinstance(value, str) for value in values):
        return {"cats_strings": values}
    return None


def _code(nodes: ContainerNodes, column: str, keys: dict[str, list[Any]] | None) -> str:
    hot = nodes.add("OneHotEncoder", [column], domain="ai.onnx.ml", zeros=0, **(keys or {}))
    return nodes.add("ArgMax", [hot], axis=2, keepdims=0)

"""The steps of an encoding as ONNX operators: what `encoding.apply_steps` does, in a graph."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from scoring.quantum.features import (
    LEAST_FIRST,
    LEAST_ROUNDING,
    PAIR,
    PRODUCT_TOLERANCE,
    Constant,
    Encoding,
    Power,
    Product,
    Round,
    Scale,
    Step,
    qubits_for,
)

if TYPE_CHECKING:
    from scoring.quantum.onnx_graph import Scope

_NARROW = 64


def add_steps(scope: Scope, encoding: Encoding, rows: str) -> str:
    """Adds the steps; returns the name of the encoded rows."""
    width = encoding.features
    for step in encoding.steps:
        rows = _add(scope, step, rows, width)
        width = step.width(width)
    return rows


def _add(scope: Scope, step: Step, rows: str, width: int) -> str:
    match step:
        case Scale():
            moved = scope.add("Sub", rows, scope.floats([step.offset]))
            return scope.add("Mul", moved, scope.floats([step.factor]))
        case Constant():
            return _append_constant(scope, step, rows, width)
        case Product():
            product = scope.add("ReduceProd", rows, scope.ints([1]), keepdims=1)
            scaled = scope.add("Mul", product, scope.floats(step.scale))
            return scope.add("Concat", rows, scaled, axis=1)
        case Power():
            return _power(scope, rows, width, step.times)
        case Round():
            return _round(scope, rows, width, step.step)


def _append_constant(scope: Scope, step: Constant, rows: str, width: int) -> str:
    count = len(step.values)
    if width <= _NARROW:  # one product, exact: each sum has one term that is not zero
        shift = np.concatenate([np.zeros(width), step.values])
        return scope.add(
            "Gemm", rows, scope.floats(np.eye(width, width + count)), scope.floats(shift)
        )
    return _concatenated(scope, step, rows)


def _concatenated(scope: Scope, step: Constant, rows: str) -> str:
    count = scope.add("Shape", rows, start=0, end=1)
    shape = scope.add("Concat", count, scope.ints([len(step.values)]), axis=0)
    values = scope.add("Expand", scope.floats([step.values]), shape)
    return scope.add("Concat", rows, values, axis=1)


def _power(scope: Scope, rows: str, width: int, times: int) -> str:
    if times == 1:
        return rows
    size = 2 ** qubits_for(width)
    factor = add_zeros(scope, rows, size - width)
    right = scope.add("Reshape", factor, scope.ints([-1, 1, size]))
    result, total = factor, size
    for _ in range(times - 1):
        left = scope.add("Reshape", result, scope.ints([-1, total, 1]))
        total *= size
        product = scope.add("Mul", left, right)
        result = scope.add("Reshape", product, scope.ints([-1, total]))
    return result


def add_zeros(scope: Scope, rows: str, count: int) -> str:
    """Appends columns of zeros."""
    return scope.add("Pad", rows, scope.ints([0, 0, 0, count])) if count else rows


def _round(scope: Scope, rows: str, width: int, step: float) -> str:
    if step <= LEAST_ROUNDING:
        return rows
    size = scope.floats(step)
    whole = scope.add("Round", scope.add("Div", rows, size))
    rounded = scope.add("Mul", whole, size)
    if width != PAIR:
        return rounded
    return scope.add("Where", _is_product(scope, rows), rows, rounded)


def _is_product(scope: Scope, rows: str) -> str:
    """Whether each row of four is a product state, which stays as it is."""
    a, b, c, d = (scope.add("Gather", rows, scope.ints([place]), axis=1) for place in range(PAIR))
    difference = scope.add("Sub", scope.add("Mul", a, d), scope.add("Mul", b, c))
    equal = scope.add("Less", scope.add("Abs", difference), scope.floats(PRODUCT_TOLERANCE))
    first = scope.add("Greater", scope.add("Abs", a), scope.floats(LEAST_FIRST))
    return scope.add("And", equal, first)

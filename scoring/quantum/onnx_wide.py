"""What `wide` does, as ONNX operators: for the branch that rows take which leave floats' range.

Mantissas are in [1, 2), and exponents are floats, too, as ONNX has no `frexp`: they come from a
logarithm, whose last digit may put a mantissa just beside that range, which does no harm.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

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
    from numpy.typing import ArrayLike

    from scoring.quantum.onnx_graph import Scope

_ZERO = -1e6
"""The exponent of zeros: far below that of everything else."""
_TOGETHER = 64
"""Mantissas that are multiplied before exponents are taken out again."""


class Wide(NamedTuple):
    """The names of numbers' mantissas and exponents."""

    mantissa: str
    exponent: str


def add_wide_steps(scope: Scope, encoding: Encoding, rows: str) -> str:
    """Adds the steps; returns the name of the encoded rows, each but for a factor of its own."""
    width = encoding.features
    wide = _wide(scope, rows)
    for step in encoding.steps:
        wide = _apply(scope, step, wide, width)
        width = step.width(width)
    top = scope.add("ReduceMax", wide.exponent, scope.ints([1]), keepdims=1)
    return _float(scope, wide.mantissa, scope.add("Sub", wide.exponent, top))


def _bounds(scope: Scope) -> tuple[int, int, int]:
    """The exponents of the least and of the largest power of two, and the bits of a mantissa."""
    found = np.finfo(scope.dtype)
    return int(found.minexp - found.nmant), int(found.maxexp - 1), int(found.nmant + 1)


def _wide(scope: Scope, values: str, exponent: str = "") -> Wide:
    """Numbers, times two to the power of the exponent if there is one, as mantissas in [1, 2)."""
    least, most, _ = _bounds(scope)
    size = scope.add("Abs", values)
    zero = scope.add("Equal", size, scope.floats(0))
    logarithm = scope.add("Log", scope.add("Where", zero, scope.floats(1), size))
    whole = scope.add("Floor", scope.add("Mul", logarithm, scope.floats(1 / math.log(2))))
    bounded = scope.add("Clip", whole, scope.floats(least), scope.floats(most))
    mantissa = scope.add("Div", values, scope.add("Pow", scope.floats(2), bounded))
    total = scope.add("Add", bounded, exponent) if exponent else bounded
    return Wide(mantissa, scope.add("Where", zero, scope.floats(_ZERO), total))


def _constants(scope: Scope, values: ArrayLike) -> Wide:
    mantissa, exponent = np.frexp(np.asarray(values, dtype=np.float64))
    return Wide(
        scope.floats(2 * mantissa), scope.floats(np.where(mantissa == 0, _ZERO, exponent - 1.0))
    )


def _float(scope: Scope, mantissa: str, exponent: str) -> str:
    least, most, _ = _bounds(scope)
    bounded = scope.add("Clip", exponent, scope.floats(2 * least), scope.floats(most - 2))
    return scope.add("Mul", mantissa, scope.add("Pow", scope.floats(2), bounded))


def _apply(scope: Scope, step: Step, rows: Wide, width: int) -> Wide:
    match step:
        case Scale():
            moved = _less(scope, rows, _constants(scope, [step.offset]))
            return _times(scope, moved, _constants(scope, [step.factor]))
        case Constant():
            return _beside(scope, rows, _repeated(scope, rows, step))
        case Product():
            return _beside(scope, rows, _product(scope, rows, width, step.scale))
        case Power():
            return _power(scope, rows, width, step.times)
        case Round():
            return _rounded(scope, rows, width, step.step)


def _beside(scope: Scope, one: Wide, other: Wide) -> Wide:
    return Wide(*(scope.add("Concat", *pair, axis=1) for pair in zip(one, other, strict=True)))


def _repeated(scope: Scope, rows: Wide, step: Constant) -> Wide:
    count = scope.add("Shape", rows.mantissa, start=0, end=1)
    shape = scope.add("Concat", count, scope.ints([len(step.values)]), axis=0)
    return Wide(*(scope.add("Expand", part, shape) for part in _constants(scope, [step.values])))


def _times(scope: Scope, one: Wide, other: Wide) -> Wide:
    product = scope.add("Mul", one.mantissa, other.mantissa)
    return _wide(scope, product, scope.add("Add", one.exponent, other.exponent))


def _less(scope: Scope, one: Wide, other: Wide) -> Wide:
    """The differences."""
    top = scope.add("Max", one.exponent, other.exponent)
    parts = [
        _float(scope, each.mantissa, scope.add("Sub", each.exponent, top)) for each in (one, other)
    ]
    return _wide(scope, scope.add("Sub", *parts), top)


def _product(scope: Scope, rows: Wide, width: int, scale: float) -> Wide:
    while width > 1:  # mantissas are below 2: more of them might leave the range of float32
        parts = -(-width // _TOGETHER)
        rows = _products(scope, _filled(scope, rows, parts * _TOGETHER - width, (1, 0)), parts)
        width = parts
    return _times(scope, rows, _constants(scope, [[scale]]))


def _products(scope: Scope, rows: Wide, parts: int) -> Wide:
    """The product of each `_TOGETHER` columns."""
    shape, axis = scope.ints([-1, parts, _TOGETHER]), scope.ints([2])
    mantissa, exponent = (scope.add("Reshape", part, shape) for part in rows)
    product = scope.add("ReduceProd", mantissa, axis, keepdims=0)
    return _wide(scope, product, scope.add("ReduceSum", exponent, axis, keepdims=0))


def _power(scope: Scope, rows: Wide, width: int, times: int) -> Wide:
    if times == 1:
        return rows
    size = 2 ** qubits_for(width)
    factor = _filled(scope, rows, size - width, (0, _ZERO))
    right = Wide(*(scope.add("Reshape", part, scope.ints([-1, 1, size])) for part in factor))
    result, total = factor, size
    for _ in range(times - 1):
        left = Wide(*(scope.add("Reshape", part, scope.ints([-1, total, 1])) for part in result))
        total *= size
        product = _times(scope, left, right)
        result = Wide(*(scope.add("Reshape", part, scope.ints([-1, total])) for part in product))
    return result


def _filled(scope: Scope, rows: Wide, count: int, by: tuple[float, float]) -> Wide:
    """Appends columns of a number: its mantissa and its exponent."""
    if not count:
        return rows
    pads = scope.ints([0, 0, 0, count])
    pairs = zip(rows, by, strict=True)
    return Wide(*(scope.add("Pad", part, pads, scope.floats(value)) for part, value in pairs))


def _rounded(scope: Scope, rows: Wide, width: int, step: float) -> Wide:
    if step <= LEAST_ROUNDING:
        return rows
    bits = scope.floats(_bounds(scope)[2])
    size = _constants(scope, step)
    exponent = scope.add("Sub", rows.exponent, size.exponent)
    # Beyond the bits of a float, it is a multiple of the step already.
    kept = scope.add("Greater", exponent, bits)
    if width == PAIR:
        kept = scope.add("Or", kept, _are_products(scope, rows))
    mantissa = scope.add("Div", rows.mantissa, size.mantissa)
    ratio = _float(scope, mantissa, scope.add("Min", exponent, bits))
    found = _times(scope, _wide(scope, scope.add("Round", ratio)), size)
    return Wide(*(scope.add("Where", kept, *pair) for pair in zip(rows, found, strict=True)))


def _are_products(scope: Scope, rows: Wide) -> str:
    """Whether each row of four is a product state, which stays as it is."""
    a, b, c, d = (
        Wide(*(scope.add("Gather", part, scope.ints([place]), axis=1) for part in rows))
        for place in range(PAIR)
    )
    difference = _less(scope, _times(scope, a, d), _times(scope, b, c))
    size = scope.add("Abs", _float(scope, *difference))
    equal = scope.add("Less", size, scope.floats(PRODUCT_TOLERANCE))
    first = scope.add("Abs", _float(scope, *a))
    return scope.add("And", equal, scope.add("Greater", first, scope.floats(LEAST_FIRST)))

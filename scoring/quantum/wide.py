"""The steps of an encoding for rows whose numbers leave the range of floats on the way. No numpy.

A state does not depend on the length of its row, so that a row such as `[1e300, 2e300]` has a state
whatever power is taken of it. Every number is kept as a mantissa and an exponent of its own
(`mantissa · 2**exponent`): exact as floats are, and without their bounds.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

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

LEAST_SUM = 2.0**-500
"""Rows whose absolute values sum to less may have lost something by steps; squares are exact."""
FLOAT_BITS = 53

Wide = tuple[float, int]
"""A mantissa in [0.5, 1) with its sign, and the exponent; (0, 0) is zero."""


def is_safe(total: float) -> bool:
    """Whether steps in floats lost nothing: `total` is the sum of a row's absolute values."""
    return LEAST_SUM <= total < math.inf


def encoded(encoding: Encoding, row: Sequence[float]) -> list[float]:
    """What the steps make of a row, but for a factor: the largest is between 0.5 and 1, or 0."""
    wide = [math.frexp(value) for value in row]
    for step in encoding.steps:
        wide = _apply(step, wide)
    top = max((exponent for mantissa, exponent in wide if mantissa), default=0)
    return [math.ldexp(mantissa, exponent - top) for mantissa, exponent in wide]


def _apply(step: Step, row: list[Wide]) -> list[Wide]:
    match step:
        case Scale():
            triples = zip(row, _wide(step.offset), _wide(step.factor), strict=True)
            return [_times(_less(value, offset), factor) for value, offset, factor in triples]
        case Constant():
            return [*row, *_wide(step.values)]
        case Product():
            product = math.frexp(step.scale)
            for value in row:
                product = _times(product, value)
            return [*row, product]
        case Power():
            return _power(row, step.times)
        case Round():
            return _rounded(row, step.step)


def _wide(values: Iterable[float]) -> list[Wide]:
    return [math.frexp(value) for value in values]


def _times(one: Wide, other: Wide) -> Wide:
    mantissa, exponent = math.frexp(one[0] * other[0])
    return (mantissa, exponent + one[1] + other[1]) if mantissa else (0.0, 0)


def _less(one: Wide, other: Wide) -> Wide:
    """The difference."""
    if not one[0] or not other[0]:
        return one if one[0] else (-other[0], other[1])
    top = max(one[1], other[1])
    parts = [math.ldexp(mantissa, exponent - top) for mantissa, exponent in (one, other)]
    mantissa, exponent = math.frexp(parts[0] - parts[1])
    return (mantissa, exponent + top) if mantissa else (0.0, 0)


def _power(row: list[Wide], times: int) -> list[Wide]:
    if times == 1:
        return row
    factor = row + [(0.0, 0)] * (2 ** qubits_for(len(row)) - len(row))
    result = factor
    for _ in range(times - 1):
        result = [_times(one, other) for one in result for other in factor]
    return result


def _rounded(row: list[Wide], step: float) -> list[Wide]:
    if step <= LEAST_ROUNDING or (len(row) == PAIR and _is_product(row)):
        return row
    size = math.frexp(step)
    return [_multiple(value, size) for value in row]


def _multiple(value: Wide, size: Wide) -> Wide:
    exponent = value[1] - size[1]
    if exponent > FLOAT_BITS:  # a multiple of the step, as near as floats tell
        return value
    return _times(math.frexp(round(math.ldexp(value[0] / size[0], exponent))), size)


def _is_product(row: list[Wide]) -> bool:
    a, b, c, d = row
    mantissa, exponent = _less(_times(a, d), _times(b, c))
    small = not mantissa or (
        exponent < 0 and abs(math.ldexp(mantissa, exponent)) < PRODUCT_TOLERANCE
    )
    return small and (a[1] > 1 or abs(math.ldexp(*a)) > LEAST_FIRST)

"""What `wide` does, for many rows at once, in numpy."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

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
from scoring.quantum.wide import FLOAT_BITS

_ZERO = -(1 << 30)
"""The exponent of zeros: below that of everything else, also after thirty products."""


class Wide(NamedTuple):
    """Numbers as `mantissa · 2**exponent`, of one shape."""

    mantissa: NDArray[Any]
    exponent: NDArray[Any]


def encoded(encoding: Encoding, rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """What the steps make of rows, but for a factor for each row: the largest is 0.5 to 1, or 0.

    Args:
        encoding: Its steps are applied.
        rows: Finite, of the shape (samples, features).
    """
    wide = _wide(rows)
    for step in encoding.steps:
        wide = _apply(step, wide)
    top = wide.exponent.max(axis=1, keepdims=True)
    return _float(wide.mantissa, wide.exponent - top)


def _wide(values: ArrayLike) -> Wide:
    return _normal(np.asarray(values, dtype=np.float64))


def _normal(values: NDArray[np.float64], exponent: NDArray[Any] | int = 0) -> Wide:
    mantissa, more = np.frexp(values)
    return Wide(mantissa, np.where(mantissa == 0, _ZERO, more + exponent))


def _float(mantissa: NDArray[Any], exponent: NDArray[Any]) -> NDArray[np.float64]:
    result: NDArray[np.float64] = np.ldexp(mantissa, np.clip(exponent, -5000, 1000))
    return result


def _apply(step: Step, rows: Wide) -> Wide:
    match step:
        case Scale():
            return _times(_less(rows, _wide([step.offset])), _wide([step.factor]))
        case Constant():
            return _beside(
                rows, _wide(np.broadcast_to(step.values, (*rows[0].shape[:1], len(step.values))))
            )
        case Product():
            return _beside(rows, _times(_product(rows), _wide([[step.scale]])))
        case Power():
            return _power(rows, step.times)
        case Round():
            return _rounded(rows, step.step)


def _beside(one: Wide, other: Wide) -> Wide:
    return Wide(*(np.concatenate(pair, axis=1) for pair in zip(one, other, strict=True)))


def _times(one: Wide, other: Wide) -> Wide:
    return _normal(one.mantissa * other.mantissa, one.exponent + other.exponent)


def _less(one: Wide, other: Wide) -> Wide:
    """The differences."""
    top = np.maximum(one.exponent, other.exponent)
    parts = [_float(each.mantissa, each.exponent - top) for each in (one, other)]
    return _normal(parts[0] - parts[1], top)


def _product(rows: Wide) -> Wide:
    result = Wide(rows.mantissa[:, :1], rows.exponent[:, :1])
    for place in range(1, rows.mantissa.shape[1]):
        result = _times(result, _column(rows, place))
    return result


def _column(rows: Wide, place: int) -> Wide:
    return Wide(*(part[:, place : place + 1] for part in rows))


def _power(rows: Wide, times: int) -> Wide:
    if times == 1:
        return rows
    count, width = rows.mantissa.shape
    factor = _beside(rows, _wide(np.zeros((count, 2 ** qubits_for(width) - width))))
    result = factor
    for _ in range(times - 1):
        left, right = Wide(*(part[:, :, None] for part in result)), factor
        product = _times(left, Wide(*(part[:, None, :] for part in right)))
        result = Wide(*(part.reshape(count, -1) for part in product))
    return result


def _rounded(rows: Wide, step: float) -> Wide:
    if step <= LEAST_ROUNDING:
        return rows
    size = _wide(step)
    exponent = rows.exponent - size.exponent
    kept = exponent > FLOAT_BITS  # multiples of the step, as near as floats tell
    if rows.mantissa.shape[1] == PAIR:
        kept = kept | _are_products(rows)
    ratio = _float(rows.mantissa / size.mantissa, np.minimum(exponent, FLOAT_BITS))
    found = _times(_wide(np.rint(ratio)), size)
    return Wide(*(np.where(kept, one, other) for one, other in zip(rows, found, strict=True)))


def _are_products(rows: Wide) -> NDArray[np.bool_]:
    a, b, c, d = (_column(rows, place) for place in range(PAIR))
    difference = np.abs(_float(*_less(_times(a, d), _times(b, c))))
    found: NDArray[np.bool_] = (difference < PRODUCT_TOLERANCE) & (np.abs(_float(*a)) > LEAST_FIRST)
    return found

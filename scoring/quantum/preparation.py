"""Encodings in words, and what they learn from the rows: `"standard constant:1,1,1 product"`.

standard[:FACTOR[,SHIFT]]   each feature without its mean, by its deviation; then plus SHIFT (0),
                            times FACTOR (1)
minmax                      each feature to 0 … 1
constant:VALUE[,VALUE…]     appends the same numbers to every row
product[:SCALE]             appends the product of all features, times SCALE (1)
power:TIMES                 the row's tensor power
round:STEP                  rounds to multiples of STEP
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from scoring.errors import CircuitError
from scoring.quantum.encoding import apply_steps
from scoring.quantum.features import (
    Constant,
    Encoding,
    Power,
    Product,
    Round,
    Scale,
    Step,
)

_HINT = (
    "A step is standard[:FACTOR[,SHIFT]], minmax, constant:VALUE[,VALUE…], product[:SCALE], "
    "power:TIMES or round:STEP."
)
Rows = NDArray[np.float64]


def fit(steps: str | Sequence[Step], rows: Rows) -> Encoding:
    """The encoding that the words mean for these rows.

    Args:
        steps: Words between blanks, in order; or steps as they are.
        rows: The rows that scales are taken from, of the shape (samples, features).

    Raises:
        CircuitError: A word is no step, or the steps do not fit the rows.
    """
    if not isinstance(steps, str):
        return Encoding(rows.shape[1], tuple(steps))
    found: list[Step] = []
    for word in steps.split():
        so_far = apply_steps(Encoding(rows.shape[1], tuple(found)), rows)
        found.append(_step(word, so_far))
    return Encoding(rows.shape[1], tuple(found))


def _step(word: str, rows: Rows) -> Step:
    name, _, tail = word.partition(":")
    if name not in _WORDS:
        raise CircuitError(f"{word!r} is no step of an encoding.", hint=_HINT, where=word)
    least, most, make = _WORDS[name]
    try:
        numbers = [float(part) for part in tail.split(",")] if tail else []
    except ValueError as error:
        raise CircuitError(f"{word!r} has no numbers.", hint=_HINT, where=word) from error
    if not least <= len(numbers) <= most:
        raise CircuitError(f"{word!r} has {len(numbers)} numbers.", hint=_HINT, where=word)
    return make(rows, *numbers)


def _standard(rows: Rows, factor: float = 1.0, shift: float = 0.0) -> Step:
    """Deviations from the mean, plus the shift, times the factor; constants become the shift."""
    small, top = _small(rows)
    mean, deviation = small.mean(axis=0), small.std(axis=0)
    constant = np.ptp(small, axis=0) == 0  # their deviation is rounding, if it is not zero
    mean[constant] = small[0, constant]
    with np.errstate(over="ignore", divide="ignore"):
        mean, deviation = np.ldexp(mean, top), np.ldexp(deviation, top)
        deviation[constant] = 1.0
        return Scale(_plain(mean - shift * deviation), _plain(factor / deviation))


def _minmax(rows: Rows) -> Step:
    small, top = _small(rows)
    low, width = rows.min(axis=0), np.ptp(small, axis=0)
    constant = width == 0
    with np.errstate(over="ignore", divide="ignore"):
        factor = np.ldexp(1.0 / width, -top)
    factor[constant] = 1.0
    return Scale(_plain(low), _plain(factor))


def _small(rows: Rows) -> tuple[Rows, NDArray[np.int32]]:
    """Rows whose columns are at most 1, and by which power of two each was more.

    Exact, so that scales are the same; only no sum or square of them leaves the range of floats.
    """
    top: NDArray[np.int32] = np.frexp(np.abs(rows).max(axis=0))[1]
    return np.ldexp(rows, -top), top


def _plain(values: Rows) -> tuple[float, ...]:
    return tuple(float(value) for value in values)


_MOST = 2**20
_WORDS: dict[str, tuple[int, int, Callable[..., Step]]] = {
    "standard": (0, 2, _standard),
    "minmax": (0, 0, _minmax),
    "constant": (1, _MOST, lambda _rows, *values: Constant(values)),
    "product": (0, 1, lambda _rows, scale=1.0: Product(scale)),
    "power": (1, 1, lambda _rows, times: Power(int(times) if times == int(times) else times)),
    "round": (1, 1, lambda _rows, step: Round(step)),
}

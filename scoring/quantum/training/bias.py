"""Fitting the bias: where between two classes' probabilities the border lies."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

_GOLDEN = (math.sqrt(5) + 1) / 2
_NARROWEST = 1e-12
"""Probabilities that are closer are equal: another runtime may answer one for the other."""


def predict(ones: NDArray[np.float64], bias: float) -> NDArray[np.intp]:
    """0 or 1 for each probability: 1 where it is over one half with the bias."""
    return (ones + bias > 0.5).astype(np.intp)  # noqa: PLR2004


def misses(ones: NDArray[np.float64], labels: NDArray[np.intp], bias: float) -> int:
    """How many labels (0 or 1) the bias gets wrong."""
    return int(np.count_nonzero(predict(ones, bias) != labels))


def fit(ones: NDArray[np.float64], labels: NDArray[np.intp], rule: str, tolerance: float) -> float:
    """A bias with few misses.

    Args:
        ones: Probabilities to measure one.
        labels: 0 or 1.
        rule: `library` or `best`.
        tolerance: How closely the library's rule searches.
    """
    lowest = float(ones[labels == 1].min(initial=1.0))
    highest = float(ones[labels == 0].max(initial=0.0))
    if highest < lowest or (highest == lowest and rule == "library"):
        return 0.5 * (1.0 - highest - lowest)
    if rule == "library":
        return _golden_section(ones, labels, (0.5 - highest, 0.5 - lowest), tolerance)
    return _best(ones, labels)


def _golden_section(
    ones: NDArray[np.float64],
    labels: NDArray[np.intp],
    bounds: tuple[float, float],
    tolerance: float,
) -> float:
    """The library's search: a local minimum of the miss rate, which is a step function."""
    low, high = bounds
    left, right = high - (high - low) / _GOLDEN, low + (high - low) / _GOLDEN
    at_left, at_right = misses(ones, labels, left), misses(ones, labels, right)
    while high - low > tolerance:
        if at_left < at_right:
            high, right, at_right = right, left, at_left
            left = high - (high - low) / _GOLDEN
            at_left = misses(ones, labels, left)
        else:
            low, left, at_left = left, right, at_right
            right = low + (high - low) / _GOLDEN
            at_right = misses(ones, labels, right)
    return left if at_left < at_right else right


def _best(ones: NDArray[np.float64], labels: NDArray[np.intp]) -> float:
    """The border with the fewest misses; of several, in the middle of the widest gap."""
    order = np.argsort(ones, kind="stable")
    values = ones[order]
    ones_below = np.concatenate([[0], np.cumsum(labels[order] == 1)])
    zeros_above = np.count_nonzero(labels == 0) - np.concatenate(
        [[0], np.cumsum(labels[order] == 0)]
    )
    wrong = (ones_below + zeros_above).astype(np.float64)  # with the border before each value
    edges = np.concatenate([[0.0], values, [1.0]])
    gaps = np.diff(edges)
    wrong[gaps <= _NARROWEST] = np.inf
    if not np.isfinite(wrong).any():
        return 0.0
    best = np.flatnonzero(wrong == wrong.min())
    place = int(best[np.argmax(gaps[best])])
    return 0.5 - float(edges[place] + edges[place + 1]) / 2

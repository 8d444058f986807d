"""Biases: the library's rule, and the one that nothing beats."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from numpy.typing import NDArray

from scoring.quantum.training import bias

SHARES = npst.arrays(np.int64, st.integers(1, 30), elements=st.integers(0, 40)).map(
    lambda values: values / 40
)


def labels_for(ones: NDArray[np.float64], seed: int) -> NDArray[np.intp]:
    return np.random.default_rng(seed).integers(0, 2, len(ones)).astype(np.intp)


@pytest.mark.parametrize("rule", ["library", "best"])
def test_separable_classes_are_parted_in_the_middle(rule: str) -> None:
    ones, labels = np.array([0.1, 0.3, 0.7]), np.array([0, 0, 1])
    assert bias.fit(ones, labels, rule, 0.005) == pytest.approx(0.0)
    assert bias.fit(ones / 2, labels, rule, 0.005) == pytest.approx(0.25)


@settings(deadline=None)
@given(SHARES, st.integers(0, 100))
def test_no_bias_has_fewer_misses_than_the_best(ones: NDArray[np.float64], seed: int) -> None:
    labels = labels_for(ones, seed)
    found = bias.misses(ones, labels, bias.fit(ones, labels, "best", 0.005))
    borders = np.unique(np.concatenate([ones, [0.0, 1.0]]))
    middles = (borders[1:] + borders[:-1]) / 2
    tried = [bias.misses(ones, labels, 0.5 - float(middle)) for middle in middles]
    assert found <= min(tried)


@settings(deadline=None)
@given(SHARES, st.integers(0, 100))
def test_the_librarys_search_ends_inside_its_bounds(ones: NDArray[np.float64], seed: int) -> None:
    labels = labels_for(ones, seed)
    found = bias.fit(ones, labels, "library", 0.005)
    assert -0.5 <= found <= 0.5


def test_the_border_itself_is_the_first_class() -> None:
    assert bias.predict(np.array([0.4, np.nextafter(0.4, 1)]), 0.1).tolist() == [0, 1]


@pytest.mark.parametrize("labels", [[0, 0], [1, 1]])
def test_one_class_alone(labels: list[int]) -> None:
    ones = np.array([0.2, 0.9])
    found = bias.fit(ones, np.array(labels), "library", 0.005)
    assert bias.misses(ones, np.array(labels), found) == 0

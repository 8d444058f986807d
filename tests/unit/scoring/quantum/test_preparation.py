"""Encodings in words."""

from __future__ import annotations

import numpy as np
import pytest

from scoring.errors import CircuitError
from scoring.quantum.encoding import apply_steps
from scoring.quantum.features import Constant, Encoding, Power, Product, Round, Scale
from scoring.quantum.preparation import fit

ROWS = np.array([[1.0, 5.0], [3.0, 5.0], [5.0, 5.0]])


def test_words_become_steps() -> None:
    found = fit("constant:1,2 product product:0.5 power:2 round:0.01", ROWS)
    assert found.steps == (
        Constant((1.0, 2.0)),
        Product(),
        Product(0.5),
        Power(2),
        Round(0.01),
    )
    assert found.features == 2


def test_scales_are_taken_from_the_rows() -> None:
    standard = apply_steps(fit("standard", ROWS), ROWS)
    assert np.allclose(standard[:, 0], [-np.sqrt(1.5), 0, np.sqrt(1.5)])
    assert standard[:, 1].tolist() == [0, 0, 0]
    shifted = apply_steps(fit("standard:2,1", ROWS), ROWS)
    assert np.allclose(shifted, (standard + 1) * 2)
    assert apply_steps(fit("minmax", ROWS), ROWS).tolist() == [[0, 0], [0.5, 0], [1, 0]]


@pytest.mark.parametrize("value", [0.1, 1 / 3, 7.7, -1e-3, 0.0, 1e300])
@pytest.mark.parametrize("words", ["standard", "minmax"])
def test_a_column_of_one_value_has_no_deviation(words: str, value: float) -> None:
    """Not that of rounding: its mean is not always what it is made of, by the last digit."""
    [step] = fit(words, np.full((80, 1), value)).steps
    assert step == Scale((value,), (1.0,))


def test_scales_of_huge_columns_are_finite() -> None:
    rows = np.array([[1.7e308, 1e-310], [-1.7e308, 3e-310], [0.0, 2e-310]])
    assert np.allclose(apply_steps(fit("minmax", rows[:, :1]), rows[2:, :1]), [[0.5]])
    standard = apply_steps(fit("standard", rows[:, :1]), rows[:, :1] / 4)
    assert np.allclose(standard, [[1.5**0.5 / 4], [-(1.5**0.5) / 4], [0]])
    with pytest.raises(CircuitError, match="factor of a scale step is inf"):
        fit("standard", rows)


def test_a_scale_sees_what_the_steps_before_it_made() -> None:
    found = apply_steps(fit("product minmax", ROWS), ROWS)
    assert found.tolist() == [[0, 0, 0], [0.5, 0, 0.5], [1, 0, 1]]


def test_steps_as_data_stay_as_they_are() -> None:
    assert fit([Product()], ROWS) == Encoding(2, (Product(),))
    assert fit("", ROWS) == Encoding(2)


@pytest.mark.parametrize(
    "word",
    [
        "fold",
        "standard:a",
        "standard:1,2,3",
        "minmax:1",
        "constant",
        "power",
        "power:1.5",
        "power:0",
        "round:0",
        "round:-1",
        "round",
        "constant:nan",
    ],
)
def test_what_is_no_step(word: str) -> None:
    with pytest.raises(CircuitError):
        fit(word, ROWS)

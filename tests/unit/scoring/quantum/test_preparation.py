"""Encodings in words."""

from __future__ import annotations

import numpy as np
import pytest

from scoring.errors import CircuitError
from scoring.quantum.encoding import apply_steps
from scoring.quantum.features import Constant, Encoding, Power, Product, Round
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

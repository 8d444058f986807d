"""Rows as amplitudes: the library's conventions, and what cannot be a row."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from scoring.errors import MissingValueError, WrongShapeError, WrongTypeError
from scoring.quantum.circuit import Circuit
from scoring.quantum.encoding import apply_steps, encode
from scoring.quantum.features import Constant, Encoding, Power, Product, Round, Scale, Step


def circuit(qubits: int, features: int, *steps: Step) -> Circuit:
    return Circuit(qubits, (), (), encoding=Encoding(features, steps))


def test_feature_k_is_amplitude_k_and_what_is_missing_is_zero() -> None:
    found = encode(circuit(2, 3), [[3.0, 0.0, -4.0]])
    assert found.tolist() == [[0.6, 0.0, -0.8, 0.0]]


def test_zeros_become_the_first_state() -> None:
    assert encode(circuit(2, 3), [[0.0, -0.0, 0.0]]).tolist() == [[1.0, 0.0, 0.0, 0.0]]


@pytest.mark.parametrize("size", [5e-324, 1e-200, 1.0, 1e200, 1.7e308])
def test_a_rows_length_does_not_matter(size: float) -> None:
    found = encode(circuit(1, 2), [[size, size]])
    assert found.tolist() == [[math.sqrt(0.5), math.sqrt(0.5)]] or np.allclose(
        found, math.sqrt(0.5), rtol=1e-15, atol=0
    )


def test_steps_are_done_in_order() -> None:
    steps = (Scale((1.0, 0.0), (2.0, 1.0)), Constant((5.0,)), Product(0.5))
    rows = np.array([[2.0, 3.0], [1.0, 7.0]])
    found = apply_steps(Encoding(2, steps), rows)
    assert found.tolist() == [[2.0, 3.0, 5.0, 15.0], [0.0, 7.0, 5.0, 0.0]]


def test_tensor_powers_fill_each_factor_with_zeros() -> None:
    found = apply_steps(Encoding(3, (Power(2),)), np.array([[1.0, 2.0, 3.0]]))
    factor = np.array([1.0, 2.0, 3.0, 0.0])
    assert found.tolist() == [np.kron(factor, factor).tolist()]


def test_rounding_goes_to_multiples_with_ties_to_even() -> None:
    found = apply_steps(Encoding(4, (Round(0.5),)), np.array([[0.3, 0.25, -0.75, 1.26]]))
    assert found.tolist() == [[0.5, 0.0, -1.0, 1.5]]


def test_rounding_spares_what_two_rotations_prepare_exactly() -> None:
    rows = np.array([[1.0, 0.26, 0.33, 0.26 * 0.33], [1e-5, 0.26, 0.0, 0.0], [1.0, 0.26, 0.3, 0.3]])
    found = apply_steps(Encoding(4, (Round(0.1),)), rows)
    assert found[0].tolist() == rows[0].tolist()
    assert np.allclose(found[1], [0.0, 0.3, 0.0, 0.0])
    assert np.allclose(found[2], [1.0, 0.3, 0.3, 0.3])


def test_a_tiny_tolerance_rounds_nothing() -> None:
    rows = np.array([[0.123456789012345, 1.0]])
    assert apply_steps(Encoding(2, (Round(1e-9),)), rows).tolist() == rows.tolist()


@pytest.mark.parametrize(
    ("rows", "kind", "message"),
    [
        ([[1.0]], WrongShapeError, "shape (1, 1); the circuit takes (rows, 2)"),
        ([[1.0, 2.0, 3.0]], WrongShapeError, "takes (rows, 2)"),
        ([1.0, 2.0], WrongShapeError, "shape (2,)"),
        ([[[1.0, 2.0]]], WrongShapeError, "shape (1, 1, 2)"),
        ([[1.0, 2.0], [3.0]], WrongTypeError, "no table of real numbers"),
        ([["a", "b"]], WrongTypeError, "not real numbers"),
        ([[1j, 2.0]], WrongTypeError, "not real numbers"),
        ([[object(), 1.0]], WrongTypeError, "no table of real numbers"),
        ([[1.0, math.nan]], MissingValueError, "Feature 1 of row 0 is nan"),
        ([[1.0, 2.0], [-math.inf, 1.0]], MissingValueError, "Feature 0 of row 1 is -inf"),
        ([[None, 1.0]], MissingValueError, "Feature 0 of row 0 is nan"),
    ],
)
def test_what_is_no_row(rows: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind) as caught:
        encode(circuit(1, 2), rows)
    assert message in str(caught.value)


def test_a_step_that_overflows_is_told() -> None:
    with pytest.raises(MissingValueError, match="is inf"):
        apply_steps(Encoding(2, (Product(),)), np.array([[1e200, 1e200]]))


def test_a_state_has_no_size_that_could_overflow() -> None:
    states = encode(circuit(2, 2, Product()), [[1e200, 1e200], [1e-200, -1e-200]])
    assert states[0] == pytest.approx([0, 0, 1, 0], abs=1e-15)
    assert states[1] == pytest.approx([0.5**0.5, -(0.5**0.5), 0, 0], abs=1e-15)


def test_no_rows_are_no_states() -> None:
    assert encode(circuit(2, 3, Product()), np.empty((0, 3))).shape == (0, 4)


def test_whole_numbers_and_truth_values_are_numbers() -> None:
    assert encode(circuit(1, 2), [[3, 4]]).tolist() == [[0.6, 0.8]]
    assert encode(circuit(1, 2), [[True, False]]).tolist() == [[1.0, 0.0]]


def test_rows_are_left_as_they_were() -> None:
    rows = np.array([[3.0, 4.0]])
    encode(circuit(2, 2, Scale((0.0, 0.0), (2.0, 2.0)), Round(0.7)), rows)
    assert rows.tolist() == [[3.0, 4.0]]

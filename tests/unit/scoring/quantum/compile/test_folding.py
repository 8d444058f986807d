"""Circuits as one matrix."""

from __future__ import annotations

import numpy as np
import pytest

from scoring.errors import CircuitTooLargeError
from scoring.quantum import memory, simulate
from scoring.quantum.compile.folding import fold
from scoring.quantum.encoding import encode
from scoring.quantum.features import Encoding
from tests.support.circuits import EVERY_STEP, random_circuit


def test_the_matrix_is_no_larger_than_the_features_need() -> None:
    circuit = random_circuit(8, 40, 0, most_controls=1, encoding=Encoding(10))
    folded = fold(circuit, (1,))
    assert folded.matrix.shape == (10, 10)
    rows = np.random.default_rng(0).normal(size=(6, 10))
    found = folded.sums(encode(circuit, rows)[:, :10])[:, 0]
    assert np.abs(found - simulate.probability_of_one(circuit, rows)).max() < 1e-13


def test_real_circuits_need_half_the_rows() -> None:
    assert fold(random_circuit(5, 20, 0, axes="Y"), (1,)).matrix.shape == (16, 32)
    assert fold(random_circuit(5, 60, 0, axes="XYZ", most_controls=1), (1,)).matrix.shape == (
        32,
        32,
    )


def test_the_width_is_that_after_the_steps() -> None:
    circuit = random_circuit(4, 20, 0, encoding=EVERY_STEP)
    assert fold(circuit, (1,)).matrix.shape == (16, 16)


def test_what_does_not_fit_is_refused_before_it_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available", lambda: 1 << 20)
    with pytest.raises(CircuitTooLargeError, match="10 qubits folded need"):
        fold(random_circuit(10, 10, 0), (1,))

"""Shots and noise: means, limits and seeds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from scoring.errors import CircuitError, CircuitTooLargeError
from scoring.quantum import memory, simulate
from scoring.quantum.circuit import Circuit, Gate, OneVersusRest
from scoring.quantum.noise import Noise, draw, noisy_outcomes, sampled_probabilities
from tests.support import dense

CIRCUIT = Circuit(
    3,
    (Gate(0, "Y", 0), Gate(1, "X", 1, (0,)), Gate(2, "Y", 2, (1,)), Gate(2, "Z", 0)),
    (0.7, 2.1, 1.3),
    bias=0.05,
)
BOTH = Circuit(3, CIRCUIT.gates, CIRCUIT.parameters, measured=(2, 0), classes=(0, 1, 2, 3))
ROWS = dense.states(CIRCUIT, samples=4)


def test_shots_are_shares_of_their_number() -> None:
    found = draw(simulate.outcome_probabilities(BOTH, ROWS), 50, 1)
    assert np.allclose(found * 50, np.rint(found * 50))
    assert np.allclose(found.sum(axis=1), 1)


def test_many_shots_tell_the_probability() -> None:
    exact = simulate.outcome_probabilities(CIRCUIT, ROWS)
    shots = 1_000_000
    found = draw(exact, shots, 2)
    deviation = np.sqrt(exact * (1 - exact) / shots)
    assert (np.abs(found - exact) <= 5 * deviation + 1e-12).all()


def test_seeds_repeat_and_differ() -> None:
    first = sampled_probabilities(CIRCUIT, ROWS, 100, 5)
    assert first.tolist() == sampled_probabilities(CIRCUIT, ROWS, 100, 5).tolist()
    assert first.tolist() != sampled_probabilities(CIRCUIT, ROWS, 100, 6).tolist()
    random = np.random.default_rng(5)
    assert first.tolist() == sampled_probabilities(CIRCUIT, ROWS, 100, random).tolist()
    assert first.tolist() != sampled_probabilities(CIRCUIT, ROWS, 100, random).tolist()


def test_several_circuits_are_drawn_one_after_another() -> None:
    model = OneVersusRest((CIRCUIT, CIRCUIT, CIRCUIT), ("a", "b", "c"))
    found = sampled_probabilities(model, ROWS, 100, 0)
    assert found.shape == (4, 3)
    assert np.allclose(found.sum(axis=1), 1)
    assert len(set(found[0].tolist())) > 1  # not the same draw three times


def test_without_noise_the_answer_is_exact() -> None:
    found = noisy_outcomes(BOTH, ROWS, Noise())
    assert np.abs(found - simulate.outcome_probabilities(BOTH, ROWS)).max() < 1e-15
    tiny = noisy_outcomes(BOTH, ROWS, Noise(depolarising=1e-15))
    assert np.abs(tiny - found).max() < 1e-12


def test_a_qubit_that_is_replaced_is_a_coin() -> None:
    once = Circuit(1, (Gate(0, "Y", 0),), (0.0,))
    for share in (0.2, 1.0):
        found = noisy_outcomes(once, [[1.0, 0.0]], Noise(depolarising=share))
        assert found.tolist() == [pytest.approx([1 - share / 2, share / 2])]


def test_depolarising_against_kraus_operators() -> None:
    share = 0.13
    found = noisy_outcomes(BOTH, ROWS, Noise(depolarising=share))
    for row, state in enumerate(ROWS):
        density = np.outer(state, state).astype(complex)
        for gate in BOTH.gates:
            turn = dense.matrix(gate, BOTH.parameters[gate.parameter], 3)
            density = turn @ density @ turn.conj().T
            for qubit in gate.qubits:
                parts = [
                    dense.kron([dense.PAULIS[axis] if q == qubit else np.eye(2) for q in range(3)])
                    for axis in "IXYZ"
                ]
                weights = [1 - 3 * share / 4, share / 4, share / 4, share / 4]
                density = sum(
                    w * (part @ density @ part.conj().T)
                    for w, part in zip(weights, parts, strict=True)
                )
        diagonal = np.diag(density).real
        index = np.arange(8)
        outcome = (index >> 2 & 1) | (index & 1) << 1
        expected = [diagonal[outcome == value].sum() for value in range(4)]
        assert np.allclose(found[row], expected, rtol=0, atol=1e-13)


def test_a_misread_bit_is_turned() -> None:
    exact = simulate.outcome_probabilities(BOTH, ROWS)
    found = noisy_outcomes(BOTH, ROWS, Noise(readout=0.1))
    single = np.array([[0.9, 0.1], [0.1, 0.9]])
    assert np.allclose(found, exact @ np.kron(single, single), rtol=0, atol=1e-15)
    coins = noisy_outcomes(BOTH, ROWS, Noise(readout=0.5))
    assert np.allclose(coins, 0.25)


def test_noise_reaches_what_is_sampled() -> None:
    clean = sampled_probabilities(CIRCUIT, ROWS, 100_000, 0)
    noisy = sampled_probabilities(CIRCUIT, ROWS, 100_000, 0, Noise(depolarising=0.9))
    assert np.abs(noisy[:, 1] - 0.55).max() < 0.05 < np.abs(clean[:, 1] - 0.55).max()


@pytest.mark.parametrize("given", [{"readout": 1.5}, {"depolarising": -0.1}])
def test_noise_is_a_probability(given: dict[str, float]) -> None:
    with pytest.raises(CircuitError, match=next(iter(given))) as caught:
        Noise(**given)
    assert "from 0 to 1" in caught.value.hint


@pytest.mark.parametrize("shots", [0, -1, 1.5])
def test_such_numbers_of_shots_are_refused(shots: Any) -> None:
    with pytest.raises(CircuitError, match=f"^{shots} measurements"):
        sampled_probabilities(CIRCUIT, ROWS, shots)


def test_shots_may_be_a_number_of_numpys() -> None:
    found = sampled_probabilities(CIRCUIT, ROWS, np.int64(10), 1)  # type: ignore[arg-type]
    assert np.array_equal(found, sampled_probabilities(CIRCUIT, ROWS, 10, 1))


def test_large_density_matrices_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available", lambda: 2**12)
    with pytest.raises(CircuitTooLargeError, match="Density matrices of 3 qubits"):
        noisy_outcomes(CIRCUIT, ROWS, Noise(depolarising=0.1))

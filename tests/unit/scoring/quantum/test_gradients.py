"""Gradients by other roads: where they are noisy, their means are right."""

from __future__ import annotations

import numpy as np
import pytest

from scoring.errors import TrainingDataError
from scoring.quantum.circuit import Circuit, Gate
from scoring.quantum.gradients import METHODS, Gradients, Method
from tests.support import dense

CIRCUIT = Circuit(
    2,
    (Gate(0, "Y", 0), Gate(1, "X", 1), Gate(1, "Y", 2, (0,)), Gate(1, "X", 0), Gate(0, "Z", 3)),
    (0.4, 1.1, 2.3, 0.7),
)
STATES = dense.states(CIRCUIT, samples=4)
WEIGHTS = np.random.default_rng(3).normal(size=(4, 2))


def find(name: str, seed: int = 0, **how: float) -> np.ndarray:
    method = Method(name, **how)  # type: ignore[arg-type]
    return Gradients(CIRCUIT, method).gradient(
        CIRCUIT.parameters, STATES, lambda _, where: WEIGHTS[where], np.random.default_rng(seed)
    )[1]


EXACT = find("adjoint")


@pytest.mark.parametrize("name", ["sampled", "hadamard"])
def test_measured_gradients_are_right_in_the_mean(name: str) -> None:
    found = np.array([find(name, seed, measurements=2_000) for seed in range(40)])
    spread = found.std(axis=0) / np.sqrt(len(found))
    assert (np.abs(found.mean(axis=0) - EXACT) <= 5 * spread + 1e-12).all()
    assert spread.max() > 1e-4  # it does measure


@pytest.mark.parametrize("name", ["sampled", "hadamard", "qsharp_released"])
def test_more_measurements_tell_more(name: str) -> None:
    target = np.zeros(4) if name == "qsharp_released" else EXACT
    few, many = (
        np.abs(find(name, 7, measurements=shots) - target).max() for shots in (100, 100_000_000)
    )
    assert many < 1e-3 < few


def test_spsa_is_right_in_the_mean() -> None:
    found = np.array([find("spsa", seed, spsa_step=1e-3, spsa_directions=8) for seed in range(60)])
    spread = found.std(axis=0) / np.sqrt(len(found))
    assert (np.abs(found.mean(axis=0) - EXACT) <= 5 * spread + 1e-4).all()


@pytest.mark.parametrize("name", METHODS)
def test_the_same_seed_gives_the_same(name: str) -> None:
    assert find(name, 11).tolist() == find(name, 11).tolist()


@pytest.mark.parametrize("name", ["sampled", "hadamard"])
def test_probabilities_are_measured_as_well(name: str) -> None:
    gradients = Gradients(CIRCUIT, Method(name, measurements=10))
    found = gradients.outcomes(CIRCUIT.parameters, STATES, np.random.default_rng(0))
    assert np.allclose(found * 10, np.rint(found * 10))
    exact = Gradients(CIRCUIT, Method()).outcomes(
        CIRCUIT.parameters, STATES, np.random.default_rng(0)
    )
    assert np.abs(exact - dense.outcomes(CIRCUIT, STATES)).max() < 1e-14


def test_what_there_is_no_such_gradient_for() -> None:
    with pytest.raises(TrainingDataError, match="no gradient 'guess'"):
        Method("guess")
    both = Circuit(2, (Gate(0, "Y", 0),), (0.4,), measured=(0, 1), classes=(0, 1, 2))
    with pytest.raises(TrainingDataError, match="for one measured qubit"):
        Gradients(both, Method("hadamard"))
    Gradients(both, Method("shift"))

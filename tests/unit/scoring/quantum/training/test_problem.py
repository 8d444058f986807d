"""Losses and their slopes, against differences."""

from __future__ import annotations

import numpy as np
import pytest

from scoring.errors import TrainingDataError
from scoring.quantum.circuit import Circuit, Gate
from scoring.quantum.training.descent import slope
from scoring.quantum.training.options import TrainingOptions
from scoring.quantum.training.problem import Problem
from tests.support import dense

GATES = (Gate(0, "Y", 0), Gate(1, "X", 1, (0,)), Gate(1, "Y", 2), Gate(0, "Y", 1))
ONE = Circuit(2, GATES, (0.3, 0.9, 1.4))
BOTH = Circuit(2, GATES, (0.3, 0.9, 1.4), measured=(0, 1), classes=("a", "b", "c"))


def problem(circuit: Circuit, **options: object) -> Problem:
    classes = len(circuit.classes)
    labels = np.arange(12) % classes
    given = TrainingOptions(**options)  # type: ignore[arg-type]
    return Problem(circuit, dense.states(circuit, samples=12), labels, given)


@pytest.mark.parametrize("circuit", [ONE, BOTH])
@pytest.mark.parametrize("offset", [0.0, 0.2, -0.6])
def test_slopes_are_differences(circuit: Circuit, offset: float) -> None:
    tried = problem(circuit)
    random = np.random.default_rng(0)
    at = np.array([*circuit.parameters, offset])

    def loss(where: np.ndarray) -> float:
        return slope(tried, where, np.arange(12), random)[0]

    value, gradient = slope(tried, at, np.arange(12), random)
    assert value == loss(at)
    for place in range(4):
        step = np.zeros(4)
        step[place] = 1e-6
        numeric = (loss(at + step) - loss(at - step)) / 2e-6
        if circuit is BOTH and place == 3:
            assert gradient[3] == 0
        else:
            assert gradient[place] == pytest.approx(numeric, rel=1e-4, abs=1e-6)


def test_a_loss_stays_finite_where_a_class_is_impossible() -> None:
    tried = problem(ONE)
    found = tried.loss(np.array([[1.0, 0.0], [0.5, 0.5]]), -0.9, np.array([1, 1]))
    assert np.isfinite(found)
    assert found > 100


def test_nothing_to_learn_from() -> None:
    with pytest.raises(TrainingDataError, match="no samples"):
        Problem(ONE, np.empty((0, 4)), np.empty(0, dtype=np.intp), TrainingOptions())
    with pytest.raises(TrainingDataError, match="no gates"):
        problem(Circuit(2, (), ()))


def test_the_released_gradient_ignores_the_training_schedule() -> None:
    some = np.array([1, 2])
    states, labels = dense.states(ONE, samples=6), np.arange(6) % 2
    options = TrainingOptions(gradient="qsharp_released")
    assert len(Problem(ONE, states, labels, options, some, some).training) == 6
    kept = Problem(ONE, states, labels, TrainingOptions(), some, some)
    assert kept.training.tolist() == [1, 2]
    assert kept.validation.tolist() == [1, 2]

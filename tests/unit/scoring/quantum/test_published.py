"""The figures that the library published, and that can be had: specs and notebook, to the miss."""

from __future__ import annotations

import numpy as np
import pytest

from scoring.quantum import SequentialClassifier, simulate
from scoring.quantum.circuit import Circuit
from scoring.quantum.encoding import encode
from scoring.quantum.training import bias
from scoring.quantum.training.options import TrainingOptions
from scoring.quantum.training.problem import Problem
from scoring.quantum.training.run import train
from tests.unit.scoring.quantum.conftest import STARTS, Data

TOLERANCE = 0.005
WINE = "standard:1.4285714285714286,1 constant:1,1,1"


def test_half_moons_at_the_published_angles(moons: Data, published: Circuit) -> None:
    ones = simulate.probability_of_one(published, moons.rows)
    fitted = bias.fit(ones, moons.labels, "library", TOLERANCE)
    model = published.at(published.parameters, fitted)
    held_out = simulate.labels(model, moons.test_rows)
    assert np.count_nonzero(held_out != moons.test_labels) == 2
    assert len(moons.test_labels) == 15
    assert np.count_nonzero(simulate.labels(model, moons.rows) != moons.labels) == 21


@pytest.mark.parametrize(("start", "misses"), [(0, 70), (1, 60), (2, 22), (3, 25)])
def test_half_moons_at_its_start_points(
    start: int, misses: int, moons: Data, published: Circuit
) -> None:
    ones = simulate.probability_of_one(published.at(STARTS[start]), moons.rows)
    fitted = bias.fit(ones, moons.labels, "library", TOLERANCE)
    assert bias.misses(ones, moons.labels, fitted) == misses


@pytest.mark.parametrize(
    ("gradient", "least", "most"), [("qsharp_released", 21, 23), ("hadamard", 14, 20)]
)
def test_half_moons_trained_as_released_and_mended(
    gradient: str, least: int, most: int, moons: Data, published: Circuit
) -> None:
    states = encode(published, moons.rows)
    options = TrainingOptions(gradient=gradient)
    found = train(Problem(published, states, moons.labels, options), STARTS, seed=1)
    assert least <= found.misses <= most


def test_half_moons_with_exact_gradients(moons: Data, published: Circuit) -> None:
    states = encode(published, moons.rows)
    problem = Problem(published, states, moons.labels, TrainingOptions())
    found = train(problem, STARTS, seed=0)
    assert found.misses <= 20
    assert [each["start_misses"] for each in found.starts] == [70, 60, 22, 25]
    model = published.at(found.parameters, found.bias)
    held_out = np.count_nonzero(simulate.labels(model, moons.test_rows) != moons.test_labels)
    assert held_out <= 4


def test_wine_rows_are_those_of_the_librarys_data_set(wine: Data) -> None:
    model = SequentialClassifier(encoding=WINE, epochs=0, starts=1, random_state=0)
    circuit = model.fit(wine.rows, wine.labels).model_
    assert isinstance(circuit, Circuit)
    first = encode(circuit, wine.rows)[0]
    printed = [0.363205411076437, 0.0638668636484459, 0.178532471398649, -0.0288976056473681]
    assert np.abs(first[:4] - printed).max() < 1e-13
    assert np.abs(first[13:] - 0.102563320682669).max() < 1e-13
    assert wine.rows.shape == (143, 13)
    assert wine.labels.sum() == 48


@pytest.mark.parametrize("seed", [0, 1])
def test_wine_with_the_mended_gradient(seed: int, wine: Data) -> None:
    model = SequentialClassifier(
        encoding=WINE,
        learning_rate=0.4,
        minibatch_size=2,
        tolerance=0.01,
        epochs=10,
        starts=16,
        random_state=seed,
    ).fit(wine.rows, wine.labels)
    assert model.evaluate(wine.rows, wine.labels).misses <= 2
    assert model.evaluate(wine.test_rows, wine.test_labels).misses <= 5

"""The figures that Microsoft's library published, and that can be had: counted, not timed."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.quantum.bench import Bench
from benchmarks.results import Row
from scoring.quantum import simulate
from scoring.quantum.circuit import Circuit, Gate
from scoring.quantum.classifier import SequentialClassifier
from scoring.quantum.encoding import encode
from scoring.quantum.features import Encoding, Product
from scoring.quantum.training import bias
from scoring.quantum.training.options import TrainingOptions
from scoring.quantum.training.problem import Problem
from scoring.quantum.training.run import train

MOONS = Path(__file__).parents[2] / "examples" / "half-moons" / "half-moons.csv"
GATES = (
    Gate(0, "X", 4),
    Gate(0, "Z", 5),
    Gate(1, "X", 6),
    Gate(1, "Z", 7),
    Gate(0, "X", 0, (1,)),
    Gate(1, "X", 1, (0,)),
    Gate(1, "Z", 2),
    Gate(1, "X", 3),
)
PUBLISHED = (1.69704, 1.13912, 2.37344, 4.051492, 1.65092, 1.28943, 0.342611, 0.316222)
STARTS = (
    (0.060057, 3.00522, 2.03083, 0.63527, 1.03771, 1.27881, 4.10186, 5.34396),
    (0.586514, 3.371623, 0.860791, 2.92517, 1.14616, 2.99776, 2.26505, 5.62137),
    (1.69704, 1.13912, 2.3595, 4.037552, 1.63698, 1.27549, 0.328671, 0.302282),
    (5.21662, 6.04363, 0.224184, 1.53913, 1.64524, 4.79508, 1.49742, 1.545),
)
START_MISSES = (70, 60, 22, 25)
SEEDS = 5
_TOLERANCE = 0.005
_WINE_ROWS = "standard:1.4285714285714286,1 constant:1,1,1"

Parts = tuple[NDArray[np.float64], NDArray[np.intp], NDArray[np.float64], NDArray[np.intp]]


def moons() -> Parts:
    """Rows and labels to learn from, and to be tested on."""
    with MOONS.open(encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    rows = np.array([[float(line["x"]), float(line["y"])] for line in lines])
    labels = np.array([int(line["label"]) for line in lines])
    learned = np.array([line["split"] == "train" for line in lines])
    return rows[learned], labels[learned], rows[~learned], labels[~learned]


def half_moons(_bench: Bench) -> list[Row]:
    """At the published parameters, and at the start points before any training."""
    rows, labels, test_rows, test_labels = moons()
    circuit = Circuit(2, GATES, PUBLISHED, encoding=Encoding(2, (Product(),)))
    model = _fitted(circuit, rows, labels)
    held_out = int(np.count_nonzero(simulate.labels(model, test_rows) != test_labels))
    found = [_counted("half-moons at the published parameters, of 15", held_out, 2, 2)]
    for place, (start, misses) in enumerate(zip(STARTS, START_MISSES, strict=True)):
        ones = simulate.probability_of_one(circuit.at(start), rows)
        fitted = bias.fit(ones, labels, "library", _TOLERANCE)
        title = f"half-moons at start point {place}, of 137"
        found.append(_counted(title, bias.misses(ones, labels, fitted), misses, misses))
    return found


def _fitted(circuit: Circuit, rows: NDArray[np.float64], labels: NDArray[np.intp]) -> Circuit:
    ones = simulate.probability_of_one(circuit, rows)
    fitted = bias.fit(ones, labels, "library", _TOLERANCE)
    return circuit.at(circuit.parameters, fitted)


def half_moons_trained(_bench: Bench) -> list[Row]:
    """As released, with the Z restored, and with exact gradients: the worst of some seeds."""
    rows, labels, _, _ = moons()
    circuit = Circuit(2, GATES, PUBLISHED, encoding=Encoding(2, (Product(),)))
    states = encode(circuit, rows)
    limits = {"qsharp_released": (21, 23), "hadamard": (14, 20), "adjoint": (0, 20)}
    found = []
    for gradient, (least, most) in limits.items():
        problem = Problem(circuit, states, labels, TrainingOptions(gradient=gradient))
        misses = [train(problem, STARTS, seed=seed).misses for seed in range(SEEDS)]
        title = f"half-moons trained, gradient {gradient}, of 137"
        found.append(_counted(title, max(misses), least, most, f"by seed: {misses}"))
    return found


def wine(_bench: Bench) -> list[Row]:
    """Class 1 against the rest, on the library's split: 143 rows to learn from."""
    from sklearn.datasets import load_wine

    rows, kinds = load_wine(return_X_y=True)
    labels = (kinds == 0).astype(np.intp)
    learned = np.arange(len(rows)) % 5 != 4
    how: dict[str, Any] = {"learning_rate": 0.4, "minibatch_size": 2, "tolerance": 0.01}
    misses = []
    for seed in range(SEEDS):
        model = SequentialClassifier(
            encoding=_WINE_ROWS, epochs=10, starts=16, random_state=seed, **how
        )
        model.fit(rows[learned], labels[learned])
        misses.append(model.evaluate(rows[learned], labels[learned]).misses)
    return [_counted("wine trained, of 143", max(misses), 0, 2, f"by seed: {misses}")]


def _counted(title: str, misses: int, least: int, most: int, notes: str = "") -> Row:
    target = f"{least}" if least == most else f"{least} to {most}"
    return Row(title, "misses", misses, target, least <= misses <= most, notes=notes)

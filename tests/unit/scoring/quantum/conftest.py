"""The library's own samples: half-moons as its notebook has it, and wine as its data set has it."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.datasets import load_wine

from scoring.quantum.circuit import Circuit, Gate
from scoring.quantum.features import Encoding, Product

MOONS = Path(__file__).parents[4] / "examples" / "half-moons" / "half-moons.csv"
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


@dataclass(frozen=True)
class Data:
    """Rows and labels to learn from, and to be tested on."""

    rows: NDArray[np.float64]
    labels: NDArray[np.intp]
    test_rows: NDArray[np.float64]
    test_labels: NDArray[np.intp]


@pytest.fixture(scope="session")
def moons() -> Data:
    """137 rows to learn from and 15 to be tested on."""
    with MOONS.open(encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    rows = np.array([[float(line["x"]), float(line["y"])] for line in lines])
    labels = np.array([int(line["label"]) for line in lines])
    train = np.array([line["split"] == "train" for line in lines])
    return Data(rows[train], labels[train], rows[~train], labels[~train])


@pytest.fixture(scope="session")
def published() -> Circuit:
    """The half-moons circuit at the angles that its notebook prints."""
    return Circuit(2, GATES, PUBLISHED, encoding=Encoding(2, (Product(),)))


@pytest.fixture(scope="session")
def wine() -> Data:
    """Class 1 against the rest: 143 rows to learn from, as the library splits them."""
    rows, kinds = load_wine(return_X_y=True)
    labels = (kinds == 0).astype(np.intp)
    train = np.arange(len(rows)) % 5 != 4
    return Data(rows[train], labels[train], rows[~train], labels[~train])

"""Gradients on 200 samples, beside PennyLane's adjoint method on lightning."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from benchmarks.quantum.bench import Bench, beside, circuit, rate, states
from benchmarks.results import Row
from scoring.quantum.adjoint import AdjointPlan

SAMPLES = 200
TARGETS = {4: 75.0, 8: 11.0, 10: 5.0, 12: 2.0, 14: 1.0}
_FOR_PEER = {4: 100, 8: 50, 10: 20, 12: 20, 14: 20}


def gradients(bench: Bench) -> list[Row]:
    """The sum over all samples, which is what a step of training needs.

    Lightning gives each sample's gradient, which takes it nothing extra. It is measured on fewer
    samples: its time for each does not depend on their number.
    """
    return [_row(bench, qubits, multiple) for qubits, multiple in TARGETS.items()]


def _row(bench: Bench, qubits: int, multiple: float) -> Row:
    asked = circuit(qubits)
    all_states = states(qubits, SAMPLES)
    plan = AdjointPlan(asked)
    weights = np.tile([0.0, 1.0], (SAMPLES, 1))

    def weigh(_outcomes: NDArray[np.float64], where: slice) -> NDArray[np.float64]:
        return weights[where]

    def ours() -> float:
        return rate(lambda: plan.gradient(asked.parameters, all_states, weigh), SAMPLES)

    return beside(
        bench,
        "gradient",
        ours,
        asked,
        all_states[: _FOR_PEER[qubits]],
        title=f"gradient, {qubits} qubits, {SAMPLES} samples, {len(asked.gates)} gates",
        multiple=multiple,
    )

"""Circuits by their seed, for tests that want many of some size, and their ONNX forms."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from scoring.quantum.circuit import Circuit, Gate, Model, OneVersusRest
from scoring.quantum.features import Constant, Encoding, Power, Product, Round, Scale

EVERY_STEP = Encoding(
    2, (Scale((0.5, -1.0), (2.0, 0.25)), Product(0.5), Constant((1.0,)), Round(0.125), Power(2))
)
"""Two features become sixteen amplitudes, by each kind of step."""


def random_circuit(
    qubits: int,
    gates: int,
    seed: int,
    *,
    axes: str = "IXYZ",
    most_controls: int | None = None,
    measured: int = 1,
    **given: Any,
) -> Circuit:
    """Gates with up to all other qubits as controls, some sharing angles, angles beyond 4π."""
    rng = np.random.default_rng(seed)
    most = min(qubits - 1, qubits if most_controls is None else most_controls)
    listed = []
    count = max(1, gates - gates // 5)
    for place in range(gates):
        order = [int(qubit) for qubit in rng.permutation(qubits)]
        controls = int(rng.integers(0, most + 1))
        parameter = place if place < count else int(rng.integers(count))
        axis = str(rng.choice(list(axes)))
        listed.append(Gate(order[0], axis, parameter, tuple(order[1 : 1 + controls])))
    angles = tuple(rng.uniform(-6 * np.pi, 6 * np.pi, min(count, gates)).tolist())
    chosen = tuple(int(qubit) for qubit in rng.permutation(qubits)[:measured])
    given.setdefault("classes", tuple(range(2**measured)))
    if measured == 1:
        given.setdefault("bias", float(rng.uniform(-0.2, 0.2)))
    return Circuit(qubits, tuple(listed), angles, measured=chosen, **given)


def against_rest() -> OneVersusRest:
    """Three circuits on the same two features."""
    circuits = tuple(
        random_circuit(4, 12, seed, most_controls=2, encoding=EVERY_STEP) for seed in range(3)
    )
    return OneVersusRest(circuits, ("red", "green", "blue"))


def rows_for(model: Model, count: int = 16, seed: int = 0) -> NDArray[np.float64]:
    """Ordinary rows, with a row of zeros, a huge one and a tiny one."""
    circuit = model.circuits[0] if isinstance(model, OneVersusRest) else model
    rows = np.random.default_rng(seed).normal(size=(count, circuit.encoding.features))
    rows[1] = 0
    if not circuit.encoding.steps:
        rows[2] *= 1e200
        rows[3] *= 1e-200
    return rows


def run_onnx(content: bytes, rows: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Labels and probabilities, by onnxruntime as anybody would use it."""
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    labels, probabilities = session.run(["predictions", "probabilities"], {"X": rows})
    return labels, probabilities

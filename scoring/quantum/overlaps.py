"""The gradient as the Q# library estimated it: Hadamard tests of shifted circuits.

For each gate the library compared the state `U(θ)ψ`, with Z on the measured qubit, with `U(θ')ψ`
whose one angle is moved by π (and, for a controlled gate, by 3π). With the Z the result is twice
the derivative of the probability; the library as it was released had lost the Z, and its gradient
is zero but for the noise of measuring.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from scoring.quantum import simulate
from scoring.quantum.circuit import Circuit, Gate

_SIGN_BIT = np.array([1.0, -1.0])


def hadamard_gradients(
    circuit: Circuit,
    states: NDArray[np.float64],
    *,
    shots: int | None = None,
    random: np.random.Generator | None = None,
    released: bool = False,
) -> NDArray[np.float64]:
    """What the library took for the gradient, for each sample: 2·∂p by each parameter.

    Args:
        circuit: It measures one qubit.
        states: Encoded samples, of the shape (samples, 2**qubits).
        shots: Measurements for each test; exact expectations where it is None.
        random: Where measured values come from.
        released: Without the Z, as the released library has it.

    Returns:
        The shape (samples, parameters).
    """
    result = np.zeros((len(states), len(circuit.parameters)))
    for portion in simulate.portions(len(states), circuit.qubits):
        for gate, moved in _moved_overlaps(circuit, states[portion], released=released):
            values = [_measured(each, shots, random) for each in moved]
            estimate = -values[0] if len(values) == 1 else (values[1] - values[0]) / 2
            result[portion, gate.parameter] += estimate
    return result


def _moved_overlaps(
    circuit: Circuit, states: NDArray[np.float64], *, released: bool
) -> list[tuple[Gate, list[NDArray[np.float64]]]]:
    """For each gate, in order, the overlaps at its angle moved by π, and by 3π if controlled."""
    after = np.array(states.T, dtype=np.complex128, order="C")
    for gate in circuit.gates:
        simulate.rotate(after, circuit.qubits, gate, circuit.parameters[gate.parameter])
    back = after.copy()
    if not released:
        view, axes = simulate.split(back, circuit.qubits, circuit.measured)
        axis = axes[circuit.measured[0]]
        view *= _SIGN_BIT.reshape([2 if place == axis else 1 for place in range(view.ndim)])
    found = []
    for gate in reversed(circuit.gates):
        shifts = (math.pi, 3 * math.pi) if gate.controls else (math.pi,)
        found.append((gate, [_overlap(back, after, circuit.qubits, gate, by) for by in shifts]))
        angle = circuit.parameters[gate.parameter]
        simulate.rotate(after, circuit.qubits, gate, -angle)
        simulate.rotate(back, circuit.qubits, gate, -angle)
    return found[::-1]


def _overlap(
    back: simulate.State, after: simulate.State, qubits: int, gate: Gate, shift: float
) -> NDArray[np.float64]:
    moved = after.copy()
    simulate.rotate(moved, qubits, gate, shift)
    found: NDArray[np.float64] = np.einsum("ij,ij->j", back.conj(), moved).real
    return found


def _measured(
    overlap: NDArray[np.float64], shots: int | None, random: np.random.Generator | None
) -> NDArray[np.float64]:
    """What `shots` Hadamard tests make of exact overlaps."""
    if shots is None or random is None:
        return overlap
    share = random.binomial(shots, np.clip((1 + overlap) / 2, 0.0, 1.0)) / shots
    found: NDArray[np.float64] = 2 * share - 1
    return found

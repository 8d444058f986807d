"""The obviously right simulator: every gate a full matrix from Kronecker products.

And circuits that hypothesis makes: shared parameters, several controls, all axes, angles beyond 4π.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from scoring.quantum.circuit import Circuit, Gate, parameters_needed

PAULIS = {
    "I": np.eye(2, dtype=complex),
    "X": np.array([[0, 1], [1, 0]], dtype=complex),
    "Y": np.array([[0, -1j], [1j, 0]]),
    "Z": np.diag([1, -1]).astype(complex),
}
ONE = np.diag([0, 1]).astype(complex)


def kron(factors: list[NDArray[Any]]) -> NDArray[Any]:
    """The product of one matrix for each qubit, qubit 0 being the last factor."""
    result: NDArray[Any] = np.eye(1, dtype=complex)
    for factor in reversed(factors):
        result = np.kron(result, factor)
    return result


def matrix(gate: Gate, angle: float, qubits: int) -> NDArray[Any]:
    """One gate on the whole register: exp(-iθP/2) where all controls are one, else 1."""
    rotation = np.cos(angle / 2) * np.eye(2) - 1j * np.sin(angle / 2) * PAULIS[gate.axis]
    on = [ONE if qubit in gate.controls else np.eye(2) for qubit in range(qubits)]
    turned = [rotation if qubit == gate.target else on[qubit] for qubit in range(qubits)]
    if not gate.controls:
        return kron(turned)
    controlled: NDArray[Any] = np.eye(1 << qubits) - kron(on) + kron(turned)
    return controlled


def unitary(circuit: Circuit) -> NDArray[Any]:
    """The whole circuit."""
    result = np.eye(circuit.size, dtype=complex)
    for gate in circuit.gates:
        result = matrix(gate, circuit.parameters[gate.parameter], circuit.qubits) @ result
    return result


def outcomes(circuit: Circuit, states: NDArray[Any]) -> NDArray[np.float64]:
    """The probabilities of all outcomes, for states of the shape (samples, 2**qubits)."""
    squares = np.abs(states @ unitary(circuit).T) ** 2
    result = np.zeros((len(states), 1 << len(circuit.measured)))
    for amplitude in range(circuit.size):
        outcome = sum((amplitude >> qubit & 1) << bit for bit, qubit in enumerate(circuit.measured))
        result[:, outcome] += squares[:, amplitude]
    return result


def gates(qubits: int, axes: str = "IXYZ", parameters: int = 6) -> st.SearchStrategy[Gate]:
    """Gates with up to three controls."""

    def build(order: list[int], controls: int, axis: str, parameter: int) -> Gate:
        return Gate(order[0], axis, parameter, tuple(order[1 : 1 + controls]))

    return st.builds(
        build,
        st.permutations(range(qubits)),
        st.integers(0, min(3, qubits - 1)),
        st.sampled_from(axes),
        st.integers(0, parameters - 1),
    )


@st.composite
def circuits(
    draw: st.DrawFn, most_qubits: int = 5, most_gates: int = 12, axes: str = "IXYZ"
) -> Circuit:
    """Circuits of 1 to `most_qubits` qubits that measure one or several of them."""
    qubits = draw(st.integers(1, most_qubits))
    listed = tuple(draw(st.lists(gates(qubits, axes), max_size=most_gates)))
    count = parameters_needed(listed)
    angles = draw(st.lists(st.floats(-30, 30, width=32), min_size=count, max_size=count))
    order = draw(st.permutations(range(qubits)))
    measured = tuple(order[: draw(st.integers(1, min(3, qubits)))])
    bias = draw(st.floats(-0.5, 0.5)) if len(measured) == 1 else 0.0
    classes = tuple(range(draw(st.integers(2, 1 << len(measured)))))
    return Circuit(qubits, listed, tuple(angles), bias, measured, classes)


def states(circuit: Circuit, samples: int = 5, seed: int = 0) -> NDArray[np.float64]:
    """Random real states."""
    found = np.random.default_rng(seed).normal(size=(samples, circuit.size))
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    return found

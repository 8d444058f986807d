"""Blocks of gates as matrices, and derivatives by their angles.

Each gate of a block is `rest + cos(θ/2)·same + sin(θ/2)·turned` with constant matrices, so that
all gates of a block are made for new angles in one step. Its derivative is `turned/2` times itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scoring.quantum.circuit import Gate

Matrices = NDArray[Any]
"""float64 or complex128."""

_PAULIS = {
    "I": np.array([[1, 0], [0, 1]], dtype=np.complex128),
    "X": np.array([[0, 1], [1, 0]], dtype=np.complex128),
    "Y": np.array([[0, -1j], [1j, 0]], dtype=np.complex128),
    "Z": np.array([[1, 0], [0, -1]], dtype=np.complex128),
}


class BlockMatrices:
    """The matrices of one block's gates, for any angles.

    Args:
        gates: In the order of application.
        qubits: The block's, ascending: bit `j` of an index belongs to `qubits[j]`.
        real: Whether all gates turn about Y: everything is then real.
    """

    def __init__(self, gates: Sequence[Gate], qubits: Sequence[int], *, real: bool) -> None:
        self.parameters = np.array([gate.parameter for gate in gates], dtype=np.intp)
        kind = np.float64 if real else np.complex128
        size = 1 << len(qubits)
        self._rest = np.zeros((len(gates), size, size), dtype=kind)
        self._same, self._turned = np.zeros_like(self._rest), np.zeros_like(self._rest)
        for place, gate in enumerate(gates):
            on, pauli = _pauli(gate, qubits)
            index = np.arange(size)
            self._rest[place, index, index] = ~on
            self._same[place, index, index] = on
            turned = -1j * pauli
            self._turned[place] = turned.real if real else turned

    def at(self, angles: NDArray[np.float64]) -> Matrices:
        """Each gate's matrix at its angle: the shape (gates, size, size)."""
        half = angles[:, None, None] / 2
        found: Matrices = self._rest + np.cos(half) * self._same + np.sin(half) * self._turned
        return found

    def products(self, angles: NDArray[np.float64]) -> Matrices:
        """Products of the last gates: entry `k` is that of the gates from `k` on.

        Returns:
            The shape (gates + 1, size, size): entry 0 is the whole block, the last one is 1.
        """
        gates = self.at(angles)
        result = np.empty((len(gates) + 1, *gates.shape[1:]), dtype=gates.dtype)
        result[-1] = np.eye(gates.shape[1])
        for place in range(len(gates) - 1, -1, -1):
            np.matmul(result[place + 1], gates[place], out=result[place])
        return result

    def derivatives(self, products: Matrices, overlap: Matrices) -> NDArray[np.float64]:
        """The derivative of `Re tr(block · overlap')` by each gate's angle, doubled.

        Args:
            products: As `products` made them.
            overlap: Σ φ·λ† over all that is not in the block, φ after the block and λ what its
                result is compared with: the shape (size, size).

        Returns:
            The shape (gates,).
        """
        after = products[1:]
        inner = after.conj().transpose(0, 2, 1) @ (overlap @ after)
        # 2·Re tr(turned/2 · inner)
        traced: NDArray[np.float64] = np.einsum("gij,gji->g", self._turned, inner).real
        return traced


def _pauli(gate: Gate, qubits: Sequence[int]) -> tuple[NDArray[np.bool_], Matrices]:
    """Where all controls are one, and the axis there (zero elsewhere), on a block's qubits."""
    places = {qubit: place for place, qubit in enumerate(qubits)}
    index = np.arange(1 << len(qubits))
    on = np.ones(len(index), dtype=np.bool_)
    for control in gate.controls:
        on &= (index >> places[control]) & 1 == 1
    pauli = _PAULIS[gate.axis]
    result = np.zeros((len(index), len(index)), dtype=np.complex128)
    if gate.axis == "I":
        result[index, index] = on
        return on, result
    bit = (index >> places[gate.target]) & 1
    flipped = index ^ (1 << places[gate.target])
    result[index, index] = np.where(on, pauli[bit, bit], 0)
    result[index, flipped] = np.where(on, pauli[bit, 1 - bit], 0)
    return on, result

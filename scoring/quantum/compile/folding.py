"""A whole circuit as one matrix.

What a circuit answers is `‖Wx‖² / ‖x‖²`, with the rows of `W` that belong to an outcome: `x` is
real, so real and imaginary rows may stand below each other. Squares of sums of squares never become
negative, as `xᵀMx` might by rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scoring.quantum import memory
from scoring.quantum.circuit import Circuit
from scoring.quantum.compile.program import Program, program

_BLOCK = 5
_PORTION = 256


@dataclass(frozen=True, eq=False)
class Folded:
    """One matrix for the whole circuit.

    Attributes:
        matrix: The shape (outcomes * rows, features), one outcome after another.
        outcomes: How many outcomes there are.
    """

    matrix: NDArray[np.float64]
    outcomes: int

    @property
    def work(self) -> float:
        """Multiplications for one row."""
        return float(self.matrix.size)

    @property
    def size(self) -> int:
        """Bytes of the matrix."""
        return self.matrix.nbytes

    def sums(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        """The squared length of each outcome's part: see `Program.sums`; rows are not padded."""
        parts = (rows @ self.matrix.T).reshape(len(rows), self.outcomes, -1)
        found: NDArray[np.float64] = np.einsum("nci,nci->nc", parts, parts)
        return found


def fold(circuit: Circuit, outcomes: Sequence[int]) -> Folded:
    """Multiplies a circuit into one matrix.

    Args:
        circuit: What is folded.
        outcomes: Which outcomes of the measured qubits to keep, in this order.

    Raises:
        CircuitTooLargeError: The matrix would not fit into memory, or into a file of ONNX.
    """
    features = circuit.encoding.width()
    rows = 2 ** (circuit.qubits - len(circuit.measured)) * (1 if circuit.is_real else 2)
    least = min(rows, features)
    memory.check_file(
        8 * features * least * len(outcomes), f"The matrix of {circuit.qubits} qubits folded"
    )
    memory.check(
        8 * features * (rows + 2 * least) * len(outcomes),
        f"The matrix of {circuit.qubits} qubits folded",
    )
    whole = _final_states(program(circuit, _BLOCK, outcomes), features)
    if rows > features:
        whole = np.stack([np.linalg.qr(part, mode="r") for part in whole])
    return Folded(np.ascontiguousarray(whole.reshape(-1, features)), len(outcomes))


def _final_states(steps: Program, features: int) -> NDArray[np.float64]:
    """What each basis state becomes: the shape (outcomes, rows, features)."""
    found: list[NDArray[np.float64]] = []
    for start in range(0, features, _PORTION):
        count = min(_PORTION, features - start)
        states = np.eye(2**steps.qubits, count, -start)
        found.append(steps.final(states).reshape(steps.outcomes, -1, count))
    return np.concatenate(found, axis=2)

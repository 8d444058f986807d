"""What a circuit answers, exactly: a state vector for each row, many rows at once.

States are kept as (amplitudes, rows): whatever qubit a gate turns, its inner loops run over rows.
Rows are taken in portions whose states stay in the processor's cache. Where all rotations are
about Y, everything is real, and takes half the memory and a quarter of the work.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scoring.quantum import memory
from scoring.quantum.circuit import Circuit, Gate, Model, OneVersusRest
from scoring.quantum.encoding import check_rows, encode

State = NDArray[Any]
"""float64 or complex128, of the shape (2**qubits, rows)."""

PORTION_BYTES = 1 << 20
_COPIES = 4


def outcome_probabilities(circuit: Circuit, rows: ArrayLike) -> NDArray[np.float64]:
    """How probable each outcome of the measured qubits is.

    Args:
        circuit: What is asked.
        rows: Raw features, of the shape (samples, features).

    Returns:
        The shape (samples, 2**measured qubits); each row's sum is 1 (within rounding).

    Raises:
        InputError: The rows are not what the circuit takes.
        CircuitTooLargeError: A single state would not fit into memory.
    """
    table = check_rows(rows, circuit.encoding.features)
    check_memory(circuit.qubits)
    result = np.empty((len(table), 2 ** len(circuit.measured)))
    for portion in portions(len(table), circuit.qubits):
        state = run(circuit, encode(circuit, table[portion]).T)
        result[portion] = measure(state, circuit.measured)
    return result


def probability_of_one(circuit: Circuit, rows: ArrayLike) -> NDArray[np.float64]:
    """The probability to measure one on a circuit's only measured qubit, without the bias.

    Returns:
        The shape (samples,).
    """
    return outcome_probabilities(circuit, rows)[:, 1]


def class_probabilities(model: Model, rows: ArrayLike) -> NDArray[np.float64]:
    """How probable each class is, as it is served; the label is the first of the largest.

    Returns:
        The shape (samples, classes); each row's sum is 1 (within rounding).
    """
    if isinstance(model, OneVersusRest):
        ones = [class_probabilities(circuit, rows)[:, 1] for circuit in model.circuits]
        return normalised(np.stack(ones, axis=1))
    return decide(model, outcome_probabilities(model, rows))


def decide(circuit: Circuit, outcomes: NDArray[np.float64]) -> NDArray[np.float64]:
    """From outcomes to classes: the bias with one measured qubit, fewer classes with several.

    Args:
        circuit: Its bias and classes are used.
        outcomes: The shape (samples, 2**measured qubits).
    """
    if circuit.is_binary:
        second = np.clip(outcomes[:, 1] + circuit.bias, 0.0, 1.0)
        return np.stack([1.0 - second, second], axis=1)
    return normalised(outcomes[:, : len(circuit.classes)])


def normalised(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rows divided by their sums; equal shares where a sum is zero."""
    sums = values.sum(axis=1, keepdims=True)
    even = np.full_like(values, 1.0 / values.shape[1])
    shares: NDArray[np.float64] = np.divide(values, sums, out=even, where=sums > 0)
    return shares


def labels(model: Model, rows: ArrayLike) -> NDArray[Any]:
    """The class of each row: the shape (samples,), of whole numbers or strings."""
    chosen = class_probabilities(model, rows).argmax(axis=1)
    found: NDArray[Any] = np.asarray(model.classes)[chosen]
    return found


def portions(samples: int, qubits: int, size: int = PORTION_BYTES) -> Iterator[slice]:
    """Slices of the samples whose states take about `size` bytes; one sample at least."""
    step = max(1, size >> (qubits + 4))
    for start in range(0, samples, step):
        yield slice(start, min(start + step, samples))


def check_memory(qubits: int, copies: int = _COPIES) -> None:
    """Raises `CircuitTooLargeError` where not even one state fits."""
    memory.check(copies << (qubits + 4), f"The states of {qubits} qubits")


def run(circuit: Circuit, states: NDArray[np.float64]) -> State:
    """The states after all gates.

    Args:
        circuit: Gates and parameters are used.
        states: Real amplitudes, of the shape (2**qubits, rows); they are not changed.
    """
    kind = np.float64 if circuit.is_real else np.complex128
    result = np.array(states, dtype=kind, order="C")
    for gate in circuit.gates:
        rotate(result, circuit.qubits, gate, circuit.parameters[gate.parameter])
    return result


def rotate(state: State, qubits: int, gate: Gate, angle: float) -> None:
    """Applies one gate to states in place; real states take rotations about Y only."""
    low, high = halves(state, qubits, gate)
    cosine, sine = math.cos(angle / 2), math.sin(angle / 2)
    match gate.axis:
        case "X":
            _turn(low, high, cosine, -1j * sine, -1j * sine)
        case "Y":
            _turn(low, high, cosine, -sine, sine)
        case "Z":
            low *= complex(cosine, -sine)
            high *= complex(cosine, sine)
        case _ if gate.controls:
            low *= complex(cosine, -sine)
            high *= complex(cosine, -sine)
        case _:  # a phase of the whole state: nothing that can be measured
            return


def _turn(low: State, high: State, same: float, up: complex, down: complex) -> None:
    """low, high = same·low + up·high, down·low + same·high."""
    old = low.copy()
    low *= same
    low += up * high
    high *= same
    high += down * old


def halves(state: State, qubits: int, gate: Gate) -> tuple[State, State]:
    """Views of the amplitudes that a gate touches: those with its target 0, and with it 1."""
    view, axes = split(state, qubits, gate.qubits)
    where: list[Any] = [slice(None)] * view.ndim
    for control in gate.controls:
        where[axes[control]] = 1
    low, high = list(where), list(where)
    low[axes[gate.target]], high[axes[gate.target]] = 0, 1
    return view[tuple(low)], view[tuple(high)]


def split(state: State, qubits: int, named: Sequence[int]) -> tuple[State, dict[int, int]]:
    """States with an axis of length 2 for each named qubit, and where those axes are."""
    shape: list[int] = []
    axes: dict[int, int] = {}
    above = qubits
    for qubit in sorted(named, reverse=True):
        shape += [2 ** (above - qubit - 1), 2]
        axes[qubit] = len(shape) - 1
        above = qubit
    return state.reshape(*shape, 2**above, state.shape[1]), axes


def measure(state: State, measured: Sequence[int]) -> NDArray[np.float64]:
    """The probabilities of all outcomes: the shape (rows, 2**measured qubits)."""
    squares: NDArray[np.float64] = state.real**2
    if np.iscomplexobj(state):
        squares += state.imag**2
    view, axes = split(squares, int(state.shape[0]).bit_length() - 1, measured)
    kept = [axes[qubit] for qubit in reversed(measured)]  # the first is least significant
    rows = view.ndim - 1
    others = [axis for axis in range(rows) if axis not in kept]
    ordered = view.transpose(*kept, *others, rows)
    sums = ordered.reshape(2 ** len(measured), -1, state.shape[1]).sum(axis=1)
    return np.ascontiguousarray(sums.T)

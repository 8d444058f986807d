"""A circuit as few small real matrices, each applied to some qubits of many states at once.

A state is a real array with an axis for each qubit, and one of length 2 for the real and imaginary
part as soon as a matrix has made it complex. A stage moves the axes that it acts on to the front
and multiplies; it does not move them back, so that `Layout` keeps account of where each one is.
The same layout is computed here in numpy, and by Transpose and MatMul in ONNX.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scoring.quantum.circuit import Circuit, Gate
from scoring.quantum.cone import Block, acts_on, fuse, light_cone
from scoring.quantum.simulate import rotate

PART = -1
"""The axis of the real and imaginary part, where axes are named by their qubits."""

Matrix = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Stage:
    """One matrix, and what it acts on.

    Attributes:
        axes: What its columns are, the most significant first: `PART` (where it mixes real and
            imaginary parts of a complex state) and qubits, descending.
        matrix: Real: the shape (rows, 2**len(axes)).
        result: What its rows are, as `axes`; in the last stage rows have an order of their own.
        outer: Further controls: the matrix is *added* to the states in which all of them are one.
    """

    axes: tuple[int, ...]
    matrix: Matrix
    result: tuple[int, ...]
    outer: tuple[int, ...] = ()


@dataclass(frozen=True, eq=False)
class Program:
    """A circuit from amplitudes to the squares of outcomes.

    Attributes:
        qubits: The size of the register.
        stages: In the order of application. The rows of the last one are ordered by outcomes.
        outcomes: How many outcomes the last stage keeps; each has an equal share of the rows.
    """

    qubits: int
    stages: tuple[Stage, ...]
    outcomes: int

    @property
    def work(self) -> float:
        """Multiplications for one row."""
        total, parts = 0.0, 1.0
        for stage in self.stages:
            cells = parts * 2**self.qubits
            total += cells * len(stage.matrix)
            parts *= len(stage.matrix) / stage.matrix.shape[1]
        return total

    @property
    def size(self) -> int:
        """Bytes of all matrices."""
        return sum(stage.matrix.nbytes for stage in self.stages)

    def sums(self, states: NDArray[Any]) -> NDArray[Any]:
        """The squared length of each outcome's part of the final state.

        Args:
            states: Real amplitudes, not necessarily of norm 1: the shape (rows, 2**qubits).

        Returns:
            The shape (rows, outcomes).
        """
        parts = self.final(states.T).reshape(self.outcomes, -1, len(states))
        found: NDArray[Any] = np.einsum("cij,cij->jc", parts, parts)
        return found

    def final(self, states: NDArray[Any]) -> NDArray[Any]:
        """What states become, outcome by outcome.

        Args:
            states: The shape (2**qubits, rows).

        Returns:
            The shape (outcomes * parts, rows): real numbers, whose order within an outcome is of
            no meaning, the same for all rows.
        """
        layout = self.layout
        for stage in self.stages:
            states, layout = _apply(stage, states, layout)
        return states

    @property
    def layout(self) -> Layout:
        """The axes of the states that go in."""
        return Layout(range(self.qubits - 1, -1, -1))


class Layout(tuple[int, ...]):
    """The axes of states in their present order, without the last one (the rows)."""

    __slots__ = ()

    def moved(self, front: Sequence[int]) -> Layout:
        """The order with some axes first and the others behind them."""
        return Layout((*front, *(axis for axis in self if axis not in front)))

    def permutation(self, target: Layout) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """How to bring states into another order, in as few axes as that takes.

        Returns:
            The sizes of groups of neighbours that stay together, in the present order; and the
            order of the groups in the target.
        """
        groups: list[list[int]] = []
        position = {axis: place for place, axis in enumerate(target)}
        for axis in self:
            if groups and position[axis] == position[groups[-1][-1]] + 1:
                groups[-1].append(axis)
            else:
                groups.append([axis])
        order = sorted(range(len(groups)), key=lambda place: position[groups[place][0]])
        return tuple(2 ** len(group) for group in groups), tuple(order)


def mask(stage: Stage, layout: Layout) -> tuple[Matrix, Layout]:
    """Where the outer controls of a stage are one.

    Returns:
        One for each state of the controls, of the shape (1, 2**controls, 1), and the layout in
        which the axes are: the stage's, the controls, all others.
    """
    where = np.zeros((1, 2 ** len(stage.outer), 1))
    where[0, -1, 0] = 1.0
    return where, layout.moved((*stage.axes, *stage.outer))


def _apply(stage: Stage, state: Matrix, layout: Layout) -> tuple[Matrix, Layout]:
    ones, moved = mask(stage, layout) if stage.outer else (None, layout.moved(stage.axes))
    sizes, order = layout.permutation(moved)
    rows = state.shape[-1]
    turned = state.reshape(*sizes, rows).transpose(*order, len(order))
    flat = turned.reshape(stage.matrix.shape[1], -1)
    result = stage.matrix.astype(state.dtype, copy=False) @ flat
    if ones is not None:
        shape = (len(result), ones.shape[1], -1)
        result = (flat.reshape(shape) + result.reshape(shape) * ones.astype(state.dtype)).reshape(
            len(result), -1
        )
    behind = moved[len(stage.axes) :]
    return result.reshape(-1, rows), Layout((*stage.result, *behind))


def program(circuit: Circuit, width: int, outcomes: Sequence[int]) -> Program:
    """A circuit's light cone in blocks of at most `width` qubits.

    Args:
        circuit: The gates, angles and measured qubits are used.
        width: The most qubits of a matrix; more where more are measured.
        outcomes: Which outcomes of the measured qubits to keep, in this order.
    """
    width = max(1, width, len(circuit.measured))
    gates = [_narrowed(gate, width) for gate in circuit.gates]
    inner = [gate for gate, _ in gates]
    stages: list[Stage] = []
    is_complex = False
    last: tuple[tuple[int, ...], Matrix] | None = None
    for block, outer in _blocks(circuit, inner, [outer for _, outer in gates], width):
        if last is not None:
            stages.append(_stage(*last, is_complex=is_complex))
            is_complex = is_complex or PART in stages[-1].result
            last = None
        matrix = _matrix(inner, block, circuit)
        if not outer:
            last = (block.qubits, matrix)
            continue
        matrix = matrix - np.eye(len(matrix))
        if np.iscomplexobj(matrix) and not is_complex:
            # A controlled stage adds to what is there, so that both parts have to be there.
            stages.append(_stage(block.qubits[:1], np.eye(2) + 0j, is_complex=False, force=True))
            is_complex = True
        stages.append(_stage(block.qubits, matrix, is_complex=is_complex, outer=outer))
    if last is not None and not set(circuit.measured) <= set(last[0]):
        stages.append(_stage(*last, is_complex=is_complex))
        is_complex = is_complex or PART in stages[-1].result
        last = None
    qubits, matrix = last or _nothing(circuit.measured)
    stage = _stage(qubits, matrix, is_complex=is_complex)
    stages.append(_selected(stage, circuit.measured, outcomes))
    return Program(circuit.qubits, tuple(stages), len(outcomes))


def _narrowed(gate: Gate, width: int) -> tuple[Gate, tuple[int, ...]]:
    """A gate on at most `width` qubits, and the controls that are left outside of its matrix."""
    if len(acts_on(gate)) <= width:
        return gate, ()
    inside = width if gate.axis == "I" else width - 1
    kept = gate.controls[:inside]
    return gate._replace(controls=kept), tuple(sorted(gate.controls[inside:], reverse=True))


def _blocks(
    circuit: Circuit, inner: Sequence[Gate], outer: Sequence[tuple[int, ...]], width: int
) -> list[tuple[Block, tuple[int, ...]]]:
    """The blocks in order, each with its outer controls: gates too wide stand alone."""
    result: list[tuple[Block, tuple[int, ...]]] = []
    run: list[int] = []
    for place in light_cone(circuit.gates, circuit.measured):
        if not outer[place]:
            run.append(place)
            continue
        result += [(block, ()) for block in fuse(inner, run, width)]
        run = []
        qubits = tuple(sorted(acts_on(inner[place])))
        result.append((Block(qubits, (place,)), outer[place]))
    return result + [(block, ()) for block in fuse(inner, run, width)]


def _matrix(gates: Sequence[Gate], block: Block, circuit: Circuit) -> Matrix:
    """The block's matrix; bit `j` of an index is `block.qubits[j]`."""
    chosen = [gates[place] for place in block.gates]
    real = all(gate.axis == "Y" for gate in chosen)
    places = {qubit: place for place, qubit in enumerate(block.qubits)}
    matrix: Matrix = np.eye(1 << len(block.qubits), dtype=np.float64 if real else np.complex128)
    for gate in chosen:
        _turn(matrix, places, gate, circuit.parameters[gate.parameter])
    return matrix


def _turn(matrix: Matrix, places: Mapping[int, int], gate: Gate, angle: float) -> None:
    """Applies a gate to a block's matrix in place."""
    controls = tuple(places[qubit] for qubit in gate.controls)
    if gate.axis != "I":
        own = gate._replace(target=places[gate.target], controls=controls)
        rotate(matrix, len(places), own, angle)
    elif controls:  # the target of a phase may be outside of the block
        number = np.arange(len(matrix))
        wanted = sum(1 << place for place in controls)
        matrix[number & wanted == wanted] *= np.exp(-0.5j * angle)


def _nothing(measured: Sequence[int]) -> tuple[tuple[int, ...], Matrix]:
    return tuple(sorted(measured)), np.eye(2 ** len(measured))


def _stage(
    qubits: Sequence[int],
    matrix: Matrix,
    *,
    is_complex: bool,
    outer: tuple[int, ...] = (),
    force: bool = False,
) -> Stage:
    """A stage of a matrix; a complex one becomes real on twice the rows."""
    axes = tuple(reversed(qubits))
    if not np.iscomplexobj(matrix) or not (force or matrix.imag.any()):
        return Stage(axes, np.ascontiguousarray(matrix.real), axes, outer)
    both = np.block([[matrix.real, -matrix.imag], [matrix.imag, matrix.real]])
    if is_complex:
        return Stage((PART, *axes), both, (PART, *axes), outer)
    first = np.ascontiguousarray(both[:, : len(matrix)])
    return Stage(axes, first, (PART, *axes))


def _selected(stage: Stage, measured: Sequence[int], outcomes: Sequence[int]) -> Stage:
    """The stage with the rows of the wanted outcomes only, one outcome after another."""
    number = np.arange(len(stage.matrix))
    bits = {axis: len(stage.result) - 1 - place for place, axis in enumerate(stage.result)}
    outcome = sum(((number >> bits[qubit]) & 1) << place for place, qubit in enumerate(measured))
    rows = np.concatenate([number[outcome == wanted] for wanted in outcomes])
    return Stage(stage.axes, np.ascontiguousarray(stage.matrix[rows]), stage.result)

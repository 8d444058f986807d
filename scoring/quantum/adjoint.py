"""Exact gradients of many samples at once: the adjoint method, block by block.

For a loss that is a sum over samples of functions of outcome probabilities, the derivative by an
angle is `2·Re Σ λ†·(∂gate)·φ`, φ being the states before a gate and λ what comes back through the
gates behind it. Here the gates of a block on few qubits are one matrix: states go through whole
blocks (one matrix product each), and what the angles of a block need of all samples is one small
matrix `Σ φ·λ†` (one more product), in which the derivatives by all its angles are found at once.

Gates outside the light cone of what is measured are left out. Samples are taken in portions that
stay in the cache, on as many threads as there are cores; where every rotation is about Y, all is
real.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scoring.quantum import memory, simulate
from scoring.quantum.circuit import Circuit
from scoring.quantum.cone import Block, fuse, light_cone
from scoring.quantum.matrices import BlockMatrices, Matrices

Weigh = Callable[[NDArray[np.float64], slice], NDArray[np.float64]]
"""From outcome probabilities (samples, outcomes) of a slice of the samples, to the derivatives of
the loss by them, of the same shape."""

BLOCK_QUBITS = 5
_PORTION_BYTES = 1 << 19
_LEAST_FOR_THREADS = 1 << 17
"""Amplitudes (of all samples) below which threads cost more than they give."""


class AdjointPlan:
    """How the gradients of a circuit are computed, for any parameters.

    Args:
        circuit: Its gates and measured qubits are used.
        block_qubits: The most qubits of a block.
    """

    def __init__(self, circuit: Circuit, block_qubits: int = BLOCK_QUBITS) -> None:
        self.qubits = circuit.qubits
        self.measured = circuit.measured
        self.kind = np.float64 if circuit.is_real else np.complex128
        self.count = len(circuit.parameters)
        width = min(block_qubits, circuit.qubits)
        places = light_cone(circuit.gates, circuit.measured)
        self.blocks = [_filled(block, width) for block in fuse(circuit.gates, places, width)]
        self._matrices = [
            BlockMatrices(
                [circuit.gates[place] for place in block.gates], block.qubits, real=circuit.is_real
            )
            for block in self.blocks
        ]
        self._orders = _orders(self.qubits, self.blocks)
        self._spaces: list[_Space] = []

    def gradient(
        self, parameters: Sequence[float], states: NDArray[np.float64], weigh: Weigh
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The outcome probabilities of all samples, and the gradient of the loss.

        Args:
            parameters: The angles.
            states: Encoded samples, of the shape (samples, 2**qubits).
            weigh: The derivatives of the loss by the outcome probabilities.

        Returns:
            Probabilities of the shape (samples, outcomes); the gradient, one number for each
            parameter.
        """
        angles = np.asarray(parameters, dtype=np.float64)
        products = [each.products(angles[each.parameters]) for each in self._matrices]
        outcomes = np.empty((len(states), 1 << len(self.measured)))

        def portion(where: slice) -> list[Matrices]:
            return self._portion(products, states, where, weigh, outcomes)

        overlaps = self._all(portion, self._portions(len(states)), states.size)
        return outcomes, self._collect(products, overlaps)

    def outcomes(
        self, parameters: Sequence[float], states: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """The outcome probabilities alone: the shape (samples, outcomes)."""
        angles = np.asarray(parameters, dtype=np.float64)
        products = [each.products(angles[each.parameters]) for each in self._matrices]
        found = np.empty((len(states), 1 << len(self.measured)))

        def portion(where: slice) -> list[Matrices]:
            space = self._space(where.stop - where.start)
            state, order = self._forward(products, states[where], space)
            axes = [order.index(qubit) for qubit in reversed(self.measured)]
            found[where] = _outcomes(state, self.qubits, axes)
            self._spaces.append(space)
            return []

        self._all(portion, self._portions(len(states)), states.size)
        return found

    def _collect(
        self, products: Sequence[Matrices], overlaps: Sequence[Sequence[Matrices]]
    ) -> NDArray[np.float64]:
        gradient = np.zeros(self.count)
        for block, each in enumerate(self._matrices):
            total = sum(part[block] for part in overlaps)
            if isinstance(total, np.ndarray):
                found = each.derivatives(products[block], total)
                np.add.at(gradient, each.parameters, found)
        return gradient

    def _portions(self, samples: int) -> list[slice]:
        self.check_memory()
        return list(simulate.portions(samples, self.qubits, _PORTION_BYTES))

    def check_memory(self) -> None:
        """Raises `CircuitTooLargeError` where a sample's states do not fit into memory."""
        copies = (len(self.blocks) + 4) * _threads()
        memory.check(copies << (self.qubits + 4), f"Gradients on {self.qubits} qubits")

    @staticmethod
    def _all(
        work: Callable[[slice], list[Matrices]], portions: list[slice], size: int
    ) -> list[list[Matrices]]:
        threads = min(_threads(), len(portions))
        if threads < 2 or size < _LEAST_FOR_THREADS:  # noqa: PLR2004
            return [work(where) for where in portions]
        with _one_blas_thread(), ThreadPoolExecutor(threads) as pool:
            return list(pool.map(work, portions))

    def _portion(
        self,
        products: Sequence[Matrices],
        states: NDArray[np.float64],
        where: slice,
        weigh: Weigh,
        outcomes: NDArray[np.float64],
    ) -> list[Matrices]:
        """One portion of the samples there and back: `Σ φ·λ†` for each block."""
        space = self._space(where.stop - where.start)
        state, order = self._forward(products, states[where], space)
        self._weighted(state, order, where, weigh, outcomes, space)
        overlaps = self._back(products, space)
        self._spaces.append(space)
        return overlaps

    def _forward(
        self, products: Sequence[Matrices], states: NDArray[np.float64], space: _Space
    ) -> tuple[Matrices, tuple[int, ...]]:
        """The states behind all blocks, and the order of their axes."""
        state: Matrices = space.first
        np.copyto(state, states.T)
        order = _straight(self.qubits)
        for block, product in enumerate(products):
            _reorder(state, order, self._orders[block], space.scratch)
            order = self._orders[block]
            state = space.after[block]
            size = product.shape[1]
            np.matmul(product[0], space.scratch.reshape(size, -1), out=state.reshape(size, -1))
        return state, order

    def _weighted(
        self,
        state: Matrices,
        order: tuple[int, ...],
        where: slice,
        weigh: Weigh,
        outcomes: NDArray[np.float64],
        space: _Space,
    ) -> None:
        """Puts into `space.back` the conjugate states, weighed by what their outcomes are worth."""
        axes = [order.index(qubit) for qubit in reversed(self.measured)]
        outcomes[where] = _outcomes(state, self.qubits, axes)
        weights = np.asarray(weigh(outcomes[where], where), dtype=np.float64)
        np.conjugate(state, out=space.back)
        view = space.back.reshape(*[2] * self.qubits, -1)
        view *= _spread(weights, self.qubits, axes)

    def _back(self, products: Sequence[Matrices], space: _Space) -> list[Matrices]:
        found: list[Matrices] = []
        back = space.back
        for block in range(len(products) - 1, -1, -1):
            size = products[block].shape[1]
            found.append(space.after[block].reshape(size, -1) @ back.reshape(size, -1).T)
            if block:
                out = space.scratch.reshape(size, -1)
                np.matmul(products[block][0].T, back.reshape(size, -1), out=out)
                _reorder(space.scratch, self._orders[block], self._orders[block - 1], back)
        return found[::-1]

    def _space(self, count: int) -> _Space:
        """Room for a portion of `count` samples that nobody uses now."""
        try:
            found = self._spaces.pop()
        except IndexError:
            found = None
        if found is None or found.capacity < count:
            most = max(count, _PORTION_BYTES >> (self.qubits + 4))
            found = _Space(1 << self.qubits, most, self.kind, len(self.blocks))
        found.resize(count)
        return found


class _Space:
    """Arrays that a portion needs, kept from one to the next: fresh memory is slow.

    Args:
        size: Amplitudes of a state.
        capacity: Samples at most.
        kind: Of the amplitudes.
        blocks: Of the plan.
    """

    def __init__(self, size: int, capacity: int, kind: type[Any], blocks: int) -> None:
        self.capacity = capacity
        self._size = size
        self._flat: list[Matrices] = [np.empty(size * capacity, kind) for _ in range(blocks + 3)]
        self.resize(capacity)

    def resize(self, count: int) -> None:
        """Makes the arrays those of `count` samples, in the same memory."""
        shape = (self._size, count)
        arrays = [flat[: self._size * count].reshape(shape) for flat in self._flat]
        self.first, self.scratch, self.back, *self.after = arrays


def _outcomes(state: Matrices, qubits: int, axes: Sequence[int]) -> NDArray[np.float64]:
    """Outcome probabilities, of the shape (samples, outcomes); `axes` from the highest bit down."""
    squares = np.square(state.real)
    if np.iscomplexobj(state):
        squares += np.square(state.imag)
    others = tuple(axis for axis in range(qubits) if axis not in axes)
    sums: NDArray[np.float64] = squares.reshape(*[2] * qubits, -1).sum(axis=others)
    ordered = sums.transpose(*np.argsort(np.argsort(axes)), len(axes))
    return ordered.reshape(1 << len(axes), -1).T


def _spread(weights: NDArray[np.float64], qubits: int, axes: Sequence[int]) -> NDArray[np.float64]:
    """Weights of outcomes (samples, outcomes) in a form that multiplies the states' axes."""
    ordered = weights.T.reshape(*[2] * len(axes), -1).transpose(*np.argsort(axes), len(axes))
    shape = [2 if axis in axes else 1 for axis in range(qubits)]
    return ordered.reshape(*shape, -1)


def _filled(block: Block, width: int) -> Block:
    """The block on exactly `width` qubits: neighbours are added where it has fewer."""
    qubits = set(block.qubits)
    for qubit in range(max(qubits, default=0) + width + 1):
        if len(qubits) >= width:
            break
        qubits.add(qubit)
    return Block(tuple(sorted(qubits)), block.gates)


def _straight(qubits: int) -> tuple[int, ...]:
    return tuple(range(qubits - 1, -1, -1))


def _orders(qubits: int, blocks: Sequence[Block]) -> list[tuple[int, ...]]:
    """For each block the order of the state's axes: its qubits first, the others as they were."""
    order = _straight(qubits)
    found = []
    for block in blocks:
        first = tuple(reversed(block.qubits))
        order = first + tuple(qubit for qubit in order if qubit not in block.qubits)
        found.append(order)
    return found


def _reorder(
    source: Matrices, before: tuple[int, ...], after: tuple[int, ...], out: Matrices
) -> None:
    """Copies states whose axes are the qubits `before` into the order `after`."""
    if before == after:
        np.copyto(out, source)
        return
    shape, axes = _steps(before, after)
    view = source.reshape(*shape, source.shape[1]).transpose(*axes, len(shape))
    np.copyto(out.reshape(view.shape), view)


@cache
def _steps(before: tuple[int, ...], after: tuple[int, ...]) -> tuple[list[int], list[int]]:
    """The axes to transpose, neighbours that stay together being one."""
    runs: list[list[int]] = []
    place = {qubit: index for index, qubit in enumerate(before)}
    for qubit in after:
        if runs and place[qubit] == place[runs[-1][-1]] + 1:
            runs[-1].append(qubit)
        else:
            runs.append([qubit])
    ordered = sorted(range(len(runs)), key=lambda run: place[runs[run][0]])
    shape = [1 << len(runs[run]) for run in ordered]
    return shape, [ordered.index(run) for run in range(len(runs))]


def _threads() -> int:
    given = os.environ.get("FIELDPOST_QUANTUM_THREADS", "")
    if given.isdigit() and int(given):
        return int(given)
    return max(1, len(os.sched_getaffinity(0)))


@cache
def _controller() -> Any:
    """What tells the linear algebra how many threads it has; None where that is not installed."""
    try:
        return import_module("threadpoolctl").ThreadpoolController()
    except ImportError:
        return None


def _one_blas_thread() -> AbstractContextManager[Any]:
    """Keeps the linear algebra to one thread for each of ours, where that can be said."""
    controller = _controller()
    if controller is None:
        return nullcontext()
    limited: AbstractContextManager[Any] = controller.limit(limits=1, user_api="blas")
    return limited

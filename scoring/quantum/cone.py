"""Which gates matter for what is measured, and which of them fit into one block of few qubits.

Pure data, without numpy: the simulator, the gradient and the compiler all cut circuits here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from scoring.quantum.circuit import Gate

_DIAGONAL = ("Z", "I")


class Block(NamedTuple):
    """Gates that follow each other on few qubits, to be applied as one matrix.

    Attributes:
        qubits: What the block acts on, ascending; bit `j` of the matrix's index is `qubits[j]`.
        gates: Places in the circuit's list of gates, in the order of application.
    """

    qubits: tuple[int, ...]
    gates: tuple[int, ...]


def acts_on(gate: Gate) -> tuple[int, ...]:
    """The qubits whose states a gate changes or looks at; the axis I does neither to its target."""
    return gate.controls if gate.axis == "I" else gate.qubits


def light_cone(gates: Sequence[Gate], measured: Iterable[int]) -> list[int]:
    """The places of the gates that the probabilities of the measured qubits depend on, in order.

    Walking back from the measurement, `touched` are the qubits that it depends on so far and
    `mixed` those among them of which more than the probabilities of 0 and 1 counts. A gate that is
    diagonal, or whose target is not touched, changes nothing where it leaves `mixed` alone.
    """
    touched, mixed = set(measured), set[int]()
    kept: list[int] = []
    for place in range(len(gates) - 1, -1, -1):
        gate = gates[place]
        qubits = acts_on(gate)
        turns = gate.axis not in _DIAGONAL and gate.target in touched
        if not turns and mixed.isdisjoint(qubits):
            continue
        kept.append(place)
        touched.update(qubits)
        if gate.axis not in _DIAGONAL:
            mixed.add(gate.target)
    return kept[::-1]


def fuse(gates: Sequence[Gate], places: Iterable[int], width: int) -> list[Block]:
    """Blocks of at most `width` qubits that do, one after another, what the gates do.

    Greedy: each block begins with the first gate that is left and takes every later one that fits
    on its qubits and that no gate left behind stands in the way of.

    Args:
        gates: The circuit's.
        places: Which of them, in order.
        width: The most qubits of a block; a gate of more makes a block of its own size.
    """
    left = list(places)
    blocks: list[Block] = []
    while left:
        block, left = _next_block(gates, left, width)
        blocks.append(block)
    return blocks


def _next_block(gates: Sequence[Gate], left: Sequence[int], width: int) -> tuple[Block, list[int]]:
    qubits: set[int] = set()
    blocked: set[int] = set()
    taken: list[int] = []
    behind: list[int] = []
    for place in left:
        needs = set(acts_on(gates[place]))
        fits = len(qubits | needs) <= max(width, len(qubits or needs))
        if fits and blocked.isdisjoint(needs):
            qubits |= needs
            taken.append(place)
        else:
            blocked |= needs
            behind.append(place)
    return Block(tuple(sorted(qubits)), tuple(taken)), behind

"""Gates for systems that know angles modulo 2π only. No numpy here.

`exp(-iθP/2)` changes its sign with θ + 2π. Of a rotation alone that is a phase of everything,
which nothing measures; of a controlled one it is a Z on the controls. Systems that read angles
modulo 2π, as the specification of OpenQASM lets them, would lose it, so it is written out.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from scoring.quantum.circuit import Circuit, Gate

TURN = 2 * math.pi


class Elementary(NamedTuple):
    """One gate to write.

    Attributes:
        name: `X`, `Y` or `Z`: a rotation by `angle`. `phase`: `angle` is the phase of one.
            `flip`: a Pauli Z.
        angle: In [0, 2π); 0 of a flip.
        target: The qubit.
        controls: Its controls.
    """

    name: str
    angle: float
    target: int
    controls: tuple[int, ...] = ()


def elementary(circuit: Circuit) -> Iterator[Elementary]:
    """A circuit's gates, all angles in [0, 2π)."""
    for gate in circuit.gates:
        yield from _elementary(gate, circuit.parameters[gate.parameter])


def _elementary(gate: Gate, angle: float) -> Iterator[Elementary]:
    if gate.axis == "I":
        if gate.controls:
            yield on_ones("phase", wrapped(-angle / 2), gate.controls)
        return
    yield Elementary(gate.axis, wrapped(angle), gate.target, gate.controls)
    if gate.controls and _odd_turns(angle):
        yield on_ones("flip", 0.0, gate.controls)


def on_ones(name: str, angle: float, qubits: Sequence[int]) -> Elementary:
    """A gate that acts where all these qubits are one: the last of them is its target."""
    return Elementary(name, angle, qubits[-1], tuple(qubits[:-1]))


def wrapped(angle: float) -> float:
    """The angle modulo 2π, in [0, 2π)."""
    rest = math.fmod(angle, TURN)
    rest = rest + TURN if rest < 0 else rest
    return 0.0 if rest >= TURN else rest


def _odd_turns(angle: float) -> bool:
    """Whether the angle modulo 4π is 2π or more; told by what `wrapped` made of it."""
    return round((angle - wrapped(angle)) / TURN) % 2 == 1

"""The gates of OpenQASM's standard library as controlled rotations. No numpy here.

A gate that is no rotation is one up to a phase of its own, which matters where it is controlled:
that phase of a controlled gate is a phase gate on its controls.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

PI = math.pi


class Turn(NamedTuple):
    """One controlled rotation."""

    axis: str
    angle: float
    target: int
    controls: tuple[int, ...] = ()


class _Single(NamedTuple):
    """A gate of one qubit: rotations in order, and the phase that they lack."""

    turns: tuple[tuple[str, float], ...]
    phase: float = 0.0


_SINGLE: dict[str, tuple[int, Callable[..., _Single]]] = {
    "id": (0, lambda: _Single(())),
    "x": (0, lambda: _Single((("X", PI),), PI / 2)),
    "y": (0, lambda: _Single((("Y", PI),), PI / 2)),
    "z": (0, lambda: _Single((("Z", PI),), PI / 2)),
    "h": (0, lambda: _Single((("Y", PI / 2), ("X", PI)), PI / 2)),
    "s": (0, lambda: _Single((("Z", PI / 2),), PI / 4)),
    "sdg": (0, lambda: _Single((("Z", -PI / 2),), -PI / 4)),
    "t": (0, lambda: _Single((("Z", PI / 4),), PI / 8)),
    "tdg": (0, lambda: _Single((("Z", -PI / 4),), -PI / 8)),
    "sx": (0, lambda: _Single((("X", PI / 2),), PI / 4)),
    "rx": (1, lambda angle: _Single((("X", angle),))),
    "ry": (1, lambda angle: _Single((("Y", angle),))),
    "rz": (1, lambda angle: _Single((("Z", angle),))),
    "p": (1, lambda angle: _Single((("Z", angle),), angle / 2)),
}
# These have a phase of their own that versions of OpenQASM define otherwise: not to be controlled.
_FREE: dict[str, tuple[int, Callable[..., _Single]]] = {
    "u2": (2, lambda b, c: _Single((("Z", c), ("Y", PI / 2), ("Z", b)))),
    "u3": (3, lambda a, b, c: _Single((("Z", c), ("Y", a), ("Z", b)))),
    "U": (3, lambda a, b, c: _Single((("Z", c), ("Y", a), ("Z", b)))),
}
_SAME = {"u1": "p", "phase": "p", "CX": "cx", "cphase": "cp", "cu1": "cp"}
_OTHERS = {"swap": (0, 2), "cswap": (0, 3), "gphase": (1, 0), "cu": (4, 2)}
_CONTROLLED = {
    **{f"c{name}": (name, 1) for name in ("x", "y", "z", "h", "p", "rx", "ry", "rz", "sx")},
    "ccx": ("x", 2),
    "ccz": ("z", 2),
}


class GateError(ValueError):
    """A gate that is not known, or is used in a way that it cannot be."""


def shape(name: str) -> tuple[int, int]:
    """How many angles and how many qubits a gate of the library takes; raises GateError."""
    name = _SAME.get(name, name)
    if name in _OTHERS:
        return _OTHERS[name]
    base, controls = _CONTROLLED.get(name, (name, 0))
    found = _SINGLE.get(base) or _FREE.get(base)
    if found is None:
        raise GateError(f"The gate {name!r} is not known.")
    return found[0], controls + 1


def turns(
    name: str, angles: Sequence[float], qubits: Sequence[int], controls: tuple[int, ...] = ()
) -> list[Turn]:
    """A gate of the library as controlled rotations.

    Args:
        name: The gate's.
        angles: As many as `shape` says.
        qubits: Its operands, its own controls first.
        controls: Further controls.

    Raises:
        GateError: It is not known, or cannot be controlled.
    """
    name = _SAME.get(name, name)
    if name in ("swap", "cswap"):
        return _swap(qubits[-2], qubits[-1], (*controls, *qubits[:-2]))
    if name == "gphase":
        return list(_phase(controls, angles[0]))
    if name == "cu":
        return _cu(angles, qubits[-1], (*controls, *qubits[:-1]))
    base, _ = _CONTROLLED.get(name, (name, 0))
    every = (*controls, *qubits[:-1])
    if base in _FREE and every:
        raise GateError(f"The gate {name!r} cannot be controlled: its phase is not agreed on.")
    _, make = (_SINGLE | _FREE)[base]
    single = make(*angles)
    found = [Turn(axis, angle, qubits[-1], every) for axis, angle in single.turns]
    return found + (list(_phase(every, single.phase)) if single.phase else [])


def _swap(one: int, other: int, controls: tuple[int, ...]) -> list[Turn]:
    outer = turns("cx", (), (other, one))
    return [*outer, *turns("cx", (), (one, other), controls), *inverse(outer)]


def _cu(angles: Sequence[float], target: int, controls: tuple[int, ...]) -> list[Turn]:
    """The controlled U, whose phase its fourth angle settles: nothing else of U's is meant."""
    turned, after, before, phase = angles
    found = [
        Turn(axis, angle, target, controls)
        for axis, angle in (("Z", before), ("Y", turned), ("Z", after))
    ]
    return [*found, *_phase(controls, phase + (after + before) / 2)]


def _phase(qubits: tuple[int, ...], angle: float) -> Iterator[Turn]:
    """The phase where all of the qubits are one; of none it is not to be seen."""
    while qubits:
        *others, last = qubits
        yield Turn("Z", angle, last, tuple(others))
        qubits, angle = tuple(others), angle / 2


def inverse(gates: Sequence[Turn]) -> list[Turn]:
    """What undoes the gates."""
    return [gate._replace(angle=-gate.angle) for gate in reversed(gates)]

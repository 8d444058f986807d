"""Builders of gate lists: the layers of the Q# library, and lists of them in one word each.

Each layer counts its parameters from 0; `combined` gives every layer its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from scoring.errors import CircuitError
from scoring.quantum.circuit import AXES, Gate, parameters_needed

_LEAST_FOR_ENTANGLING = 2
_HINT = (
    "A layer is local-AXIS, partial-AXIS:QUBIT[,QUBIT…], cyclic-AXIS[:STRIDE] or "
    "turn-AXIS:TARGET[,CONTROL…], with the axes x, y, z or i; negative qubits count from the end."
)


def local(qubits: int, axis: str) -> list[Gate]:
    """A rotation of each qubit about one axis."""
    return partial(range(qubits), axis)


def partial(targets: Iterable[int], axis: str) -> list[Gate]:
    """A rotation of each of the named qubits about one axis, in the order given."""
    return [Gate(target, axis, place) for place, target in enumerate(targets)]


def cyclic(qubits: int, axis: str, stride: int = 1) -> list[Gate]:
    """Rotations of qubit `i`, controlled by qubit `(i + stride) mod qubits`, for each `i`.

    Raises:
        CircuitError: The stride is a multiple of the number of qubits: a control would be its
            target.
    """
    if qubits < _LEAST_FOR_ENTANGLING or stride % qubits == 0:
        raise CircuitError(
            f"A cyclic layer of {qubits} qubits with stride {stride} would control qubits by "
            "themselves.",
            hint="Use two or more qubits, and a stride that is no multiple of their number.",
        )
    return [Gate(target, axis, target, ((target + stride) % qubits,)) for target in range(qubits)]


def combined(layers: Iterable[Sequence[Gate]]) -> list[Gate]:
    """The layers one after another, each with parameters of its own.

    The Q# library moved the places on by the number of a layer's gates. Here it is the number of
    its parameters, so that gates of one layer may share some.
    """
    gates: list[Gate] = []
    offset = 0
    for layer in layers:
        gates += [gate._replace(parameter=gate.parameter + offset) for gate in layer]
        offset += parameters_needed(layer)
    return gates


def parse(structure: str, qubits: int) -> list[Gate]:
    """The gates of a structure in words: `"local-z local-x cyclic-x partial-x:-1"`.

    Args:
        structure: Layers in order, between blanks: `local-AXIS`, `partial-AXIS:QUBITS`,
            `cyclic-AXIS[:STRIDE]`, `turn-AXIS:TARGET[,CONTROL…]` (one gate). Qubits that are
            negative count from the end.
        qubits: The size of the register.

    Raises:
        CircuitError: A word is no layer, or names a qubit that is not there.
    """
    return combined([_layer(word, qubits) for word in structure.split()])


def least_qubits(structure: str) -> int:
    """The smallest register on which the words can be layers."""
    least = 1
    for word in structure.split():
        head, _, tail = word.partition(":")
        numbers = _numbers(tail, word)
        if head.startswith("cyclic-"):
            steps = [abs(stride) + 1 for stride in numbers]
            least = max(least, _LEAST_FOR_ENTANGLING, *steps)
        else:
            needed = (number + 1 if number >= 0 else -number for number in numbers)
            least = max(least, *needed, 1)
    return least


def _layer(word: str, qubits: int) -> list[Gate]:
    head, _, tail = word.partition(":")
    kind, _, axis = head.partition("-")
    axis = axis.upper()
    if axis not in AXES:
        raise CircuitError(f"{word!r} is no layer.", hint=_HINT, where=word)
    numbers = _numbers(tail, word)
    if kind == "local" and not tail:
        return local(qubits, axis)
    if kind == "cyclic" and len(numbers) <= 1:
        return cyclic(qubits, axis, *numbers)
    if kind == "partial" and numbers:
        return partial([_qubit(number, qubits, word) for number in numbers], axis)
    if kind == "turn" and numbers:
        target, *controls = [_qubit(number, qubits, word) for number in numbers]
        return [Gate(target, axis, 0, tuple(controls))]
    raise CircuitError(f"{word!r} is no layer.", hint=_HINT, where=word)


def _numbers(text: str, word: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")] if text else []
    except ValueError as error:
        raise CircuitError(f"{word!r} names no qubits.", hint=_HINT, where=word) from error


def _qubit(number: int, qubits: int, word: str) -> int:
    if not -qubits <= number < qubits:
        raise CircuitError(
            f"{word!r} names qubit {number}; the register has {qubits}.",
            hint=f"Qubits count from 0 to {qubits - 1}, or from the end with -1.",
            where=word,
        )
    return number % qubits

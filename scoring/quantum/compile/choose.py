"""Folded or fused: which form of a circuit answers faster, and why."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from scoring.errors import CircuitTooLargeError
from scoring.quantum.circuit import Circuit
from scoring.quantum.compile.folding import Folded, fold
from scoring.quantum.compile.program import Program, program

FormName = Literal["folded", "fused"]
Request = Literal["auto", "folded", "fused"]
Rate = Callable[["Part"], float]
"""Rows per second of a part, as it will serve."""

ALWAYS_FOLDED = 9
ALWAYS_FUSED = 12
_WIDTHS = (3, 4, 5, 6)
_STAGE_COST = 48.0
"""What moving the axes of a state costs, in multiplications for each of its numbers."""


@dataclass(frozen=True, eq=False)
class Part:
    """One circuit in the form that serves.

    Attributes:
        circuit: What it does.
        form: The form's name.
        compiled: One matrix, or several small ones.
        outcomes: Which outcomes of the measured qubits it yields, in this order.
        reason: Why this form, in a sentence.
    """

    circuit: Circuit
    form: FormName
    compiled: Folded | Program
    outcomes: tuple[int, ...]
    reason: str


def wanted_outcomes(circuit: Circuit) -> tuple[int, ...]:
    """The outcomes that the classes need: with one measured qubit, that of one is enough."""
    return (1,) if circuit.is_binary else tuple(range(len(circuit.classes)))


def choose(circuit: Circuit, request: Request, rate: Rate) -> Part:
    """The form of a circuit that answers most rows per second.

    By the number of qubits that the features need: up to 9 the folded form, from 12 the fused one;
    in between both are made and timed.

    Args:
        circuit: What is compiled.
        request: A form, or `auto`.
        rate: Times a form, where the size does not decide.

    Raises:
        CircuitTooLargeError: The folded form was asked for and does not fit into memory.
    """
    size = (circuit.encoding.width() - 1).bit_length()
    if request != "auto":
        make = folded if request == "folded" else fused
        return make(circuit, "It was asked for.")
    if size <= ALWAYS_FOLDED and circuit.qubits < ALWAYS_FUSED:
        return folded(circuit, f"Up to {ALWAYS_FOLDED} qubits one matrix is the fastest form.")
    if size >= ALWAYS_FUSED or circuit.qubits > ALWAYS_FUSED:
        return fused(circuit, f"From {ALWAYS_FUSED} qubits on small blocks take less work.")
    return _faster(circuit, rate)


def _faster(circuit: Circuit, rate: Rate) -> Part:
    small = fused(circuit, "")
    try:
        whole = folded(circuit, "")
    except CircuitTooLargeError as error:
        return _because(small, f"The folded form does not fit: {error.message}")
    rates = {part.form: rate(part) for part in (whole, small)}
    best = whole if rates["folded"] >= rates["fused"] else small
    return _because(
        best,
        f"Of {circuit.qubits} qubits both forms were timed here: folded {rates['folded']:,.0f}, "
        f"fused {rates['fused']:,.0f} rows/s.",
    )


def _because(part: Part, reason: str) -> Part:
    return Part(part.circuit, part.form, part.compiled, part.outcomes, reason)


def folded(circuit: Circuit, reason: str) -> Part:
    """The circuit as one matrix; raises CircuitTooLargeError."""
    outcomes = wanted_outcomes(circuit)
    return Part(circuit, "folded", fold(circuit, outcomes), outcomes, reason)


def fused(circuit: Circuit, reason: str) -> Part:
    """The circuit in blocks, as wide as makes the least work."""
    outcomes = wanted_outcomes(circuit)
    widths = sorted({min(width, circuit.qubits) for width in _WIDTHS})
    programs = [program(circuit, width, outcomes) for width in widths]
    return Part(circuit, "fused", min(programs, key=_cost), outcomes, reason)


def _cost(steps: Program) -> float:
    return steps.work + _STAGE_COST * len(steps.stages) * float(2 << steps.qubits)


def describe(parts: Sequence[Part]) -> str:
    """One sentence or two on what was chosen for each circuit, and why."""
    first = parts[0]
    cells = first.compiled.size
    what = (
        "x".join(str(side) for side in first.compiled.matrix.shape) + " matrix"
        if isinstance(first.compiled, Folded)
        else f"{len(first.compiled.stages)} blocks"
    )
    many = f" (first of {len(parts)} circuits)" if len(parts) > 1 else ""
    return f"{first.form.capitalize()} into {what}, {cells / 1000:,.1f} kB{many}. {first.reason}"

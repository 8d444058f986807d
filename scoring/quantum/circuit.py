"""A quantum classifier as data: gates, parameters, bias, what is measured, how rows are encoded.

A circuit that exists is valid: everything is checked when it is made. No numpy here, so that a
small device can read what it serves.

The gates are controlled rotations `R(P, θ) = exp(-iθP/2)`, applied in order. A controlled rotation
therefore has the period 4π in θ, not 2π. The axis `I` turns only the phase of the states in which
all controls are one.

The answer: with one measured qubit and two classes, `p` is the probability to measure one, and the
second class is meant where `p + bias > 0.5`. Its probability, as it is served, is `p + bias` kept
within [0, 1], so that the class and the larger probability never disagree. With more classes the
outcome of the measured qubits (the first of them is the least significant bit) is the number of the
class; outcomes beyond the last class are left out and the others normalised; there is no bias.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self

from scoring.errors import CircuitError
from scoring.quantum.features import Encoding, check_numbers, is_integer, qubits_for

AXES = ("I", "X", "Y", "Z")
MAX_QUBITS = 30
MAX_GATES = 100_000
MAX_CLASSES = 1024
LABELS = 1 << 63
"""Labels that are whole numbers are below this, and not below its negative: they are served so."""

Label = int | str
_WHOLE_REGISTER = Encoding(1)
"""Stands for as many raw features as the register has amplitudes."""


class Gate(NamedTuple):
    """A rotation of one qubit, applied where all controls are one.

    Attributes:
        target: The qubit that is turned.
        axis: `X`, `Y`, `Z` or `I`.
        parameter: The place of its angle among the circuit's parameters.
        controls: The qubits that have to be one.
    """

    target: int
    axis: str
    parameter: int
    controls: tuple[int, ...] = ()

    @property
    def qubits(self) -> tuple[int, ...]:
        """Everything that the gate touches: its target, then its controls."""
        return (self.target, *self.controls)


@dataclass(frozen=True)
class Circuit:
    """A classifier: `encoding`, then `gates` at `parameters`, then `measured`, then `bias`.

    Attributes:
        qubits: The size of the register.
        gates: In the order of their application.
        parameters: Angles in radians; each gate names its own, and gates may share one.
        bias: Added to the probability of one measured qubit; 0 with several.
        measured: Qubits; by default the last one. The first is the outcome's least significant bit.
        classes: The labels of the outcomes 0, 1, …: whole numbers or strings.
        encoding: What rows become; by default `2**qubits` raw features.
        record: Notes on how it was trained; kept with the circuit, not part of its digest.
    """

    qubits: int
    gates: tuple[Gate, ...]
    parameters: tuple[float, ...]
    bias: float = 0.0
    measured: tuple[int, ...] = ()
    classes: tuple[Label, ...] = (0, 1)
    encoding: Encoding = _WHOLE_REGISTER
    record: Mapping[str, Any] = field(default_factory=dict, compare=False, hash=False)

    def __post_init__(self) -> None:
        check_qubits(self.qubits)
        put = object.__setattr__
        put(self, "gates", tuple(Gate(*gate) for gate in self.gates))
        put(self, "measured", tuple(self.measured) or (self.qubits - 1,))
        put(self, "classes", tuple(self.classes))
        put(self, "parameters", tuple(self.parameters))
        if self.encoding is _WHOLE_REGISTER:
            put(self, "encoding", Encoding(2**self.qubits))
        check_gates(self.gates, self.qubits)
        check_parameters(self.gates, self.parameters)
        put(self, "parameters", tuple(float(value) + 0.0 for value in self.parameters))
        check_numbers("bias", (self.bias,))
        put(self, "bias", float(self.bias) + 0.0)
        check_measured(self.measured, self.qubits)
        check_classes(self.classes, self.measured, self.bias)
        _check_width(self.encoding, self.qubits)

    @property
    def size(self) -> int:
        """The number of amplitudes."""
        return 1 << self.qubits

    @property
    def is_binary(self) -> bool:
        """Whether one qubit tells two classes apart, with a bias."""
        return len(self.measured) == 1

    @property
    def is_real(self) -> bool:
        """Whether every amplitude stays real: all rotations are about Y (or do nothing)."""
        return all(gate.axis == "Y" or _is_idle(gate) for gate in self.gates)

    def at(self, parameters: Iterable[float], bias: float | None = None) -> Self:
        """The same circuit at other angles, and at another bias where one is given."""
        angles = tuple(float(value) for value in parameters)
        return dataclasses.replace(
            self, parameters=angles, bias=self.bias if bias is None else float(bias)
        )


@dataclass(frozen=True)
class OneVersusRest:
    """Several circuits, each telling one class from all others; the surest one answers.

    The probability of class `c` is that of circuit `c` for its second class, divided by the sum of
    all (equal shares where all are zero); the first of the largest is the label.

    Attributes:
        circuits: One for each class, each with two classes; they take the same rows.
        classes: The labels, in the circuits' order.
        record: Notes on how it was trained.
    """

    circuits: tuple[Circuit, ...]
    classes: tuple[Label, ...]
    record: Mapping[str, Any] = field(default_factory=dict, compare=False, hash=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "circuits", tuple(self.circuits))
        object.__setattr__(self, "classes", tuple(self.classes))
        check_labels(self.classes)
        if len(self.circuits) != len(self.classes):
            raise CircuitError(
                f"{len(self.circuits)} circuits were given for {len(self.classes)} classes.",
                hint="One against rest takes one circuit for each class.",
            )
        for index, circuit in enumerate(self.circuits):
            if not circuit.is_binary:
                raise CircuitError(
                    "A circuit of one against rest measures several qubits.",
                    hint="Each of them has to measure one.",
                    where=f"circuits[{index}]",
                )
        if len({circuit.encoding.features for circuit in self.circuits}) > 1:
            raise CircuitError("The circuits of one against rest take rows of different lengths.")

    @property
    def features(self) -> int:
        """How many numbers a raw row has."""
        return self.circuits[0].encoding.features


Model = Circuit | OneVersusRest


def qubits_needed(gates: Iterable[Gate]) -> int:
    """The size of the smallest register that the gates fit on; at least one qubit."""
    return 1 + max((max(gate.qubits) for gate in gates), default=0)


def parameters_needed(gates: Iterable[Gate]) -> int:
    """The number of parameters that the gates name: one more than the highest place."""
    return 1 + max((gate.parameter for gate in gates), default=-1)


def check_qubits(qubits: int) -> None:
    """Raises `CircuitError` unless a register may have this size."""
    if not is_integer(qubits) or not 1 <= qubits <= MAX_QUBITS:
        raise CircuitError(
            f"A circuit on {qubits!r} qubits cannot be described.",
            hint=f"Use 1 to {MAX_QUBITS} qubits.",
            where="qubits",
        )


def check_gates(gates: Sequence[Gate], qubits: int) -> None:
    """Raises `CircuitError` for the first gate that cannot be applied to the register."""
    if len(gates) > MAX_GATES:
        raise CircuitError(f"The circuit has {len(gates)} gates; at most {MAX_GATES} are taken.")
    for index, gate in enumerate(gates):
        _check_gate(gate, qubits, f"gates[{index}]")


def _check_gate(gate: Gate, qubits: int, where: str) -> None:
    if gate.axis not in AXES:
        raise CircuitError(
            f"A rotation about {gate.axis!r} is not known.",
            hint=f"Use one of {', '.join(AXES)}.",
            where=f"{where}.axis",
        )
    if not is_integer(gate.parameter) or gate.parameter < 0:
        raise CircuitError(
            f"{gate.parameter!r} is no place of a parameter.",
            hint="Places are whole numbers from 0.",
            where=f"{where}.parameter",
        )
    check_on_register(gate.target, qubits, f"{where}.target")
    for control in gate.controls:
        check_on_register(control, qubits, f"{where}.controls")
    if gate.target in gate.controls:
        raise CircuitError(
            f"A gate on qubit {gate.target} is controlled by its own target.",
            hint="Choose another control; a cyclic layer's stride must not be a multiple of its "
            "number of qubits.",
            where=where,
        )
    if len(set(gate.controls)) != len(gate.controls):
        raise CircuitError(f"A gate names a control twice: {list(gate.controls)}.", where=where)


def check_on_register(qubit: int, qubits: int, where: str) -> None:
    """Raises `CircuitError` unless the qubit is one of the register."""
    if not is_integer(qubit) or not 0 <= qubit < qubits:
        raise CircuitError(
            f"Qubit {qubit!r} is not on the register of {qubits}.",
            hint=f"Qubits count from 0 to {qubits - 1}.",
            where=where,
        )


def check_parameters(gates: Sequence[Gate], parameters: Sequence[float]) -> None:
    """Raises `CircuitError` unless there is one finite angle for each place that gates name."""
    needed, given = parameters_needed(gates), len(parameters)
    if given < needed:
        raise CircuitError(
            f"Parameters are missing: the gates name {needed}, and {given} are given.",
            where="parameters",
        )
    if given > needed:
        raise CircuitError(
            f"There are too many parameters: {given} are given, and the gates name {needed}.",
            hint="Leave out those that no gate names.",
            where="parameters",
        )
    check_numbers("parameters", parameters)


def check_measured(measured: Sequence[int], qubits: int) -> None:
    """Raises `CircuitError` unless different qubits of the register are measured."""
    for qubit in measured:
        check_on_register(qubit, qubits, "measured")
    if len(set(measured)) != len(measured):
        raise CircuitError(f"A qubit is measured twice: {list(measured)}.", where="measured")
    if 2 ** len(measured) > MAX_CLASSES:
        raise CircuitError(f"{len(measured)} qubits are measured; at most 10 may be.")


def check_classes(classes: Sequence[Label], measured: Sequence[int], bias: float) -> None:
    """Raises `CircuitError` unless the measured qubits can tell the classes apart."""
    check_labels(classes)
    room = 2 ** len(measured)
    if len(classes) > room:
        raise CircuitError(
            f"{len(measured)} measured qubits cannot tell {len(classes)} classes apart.",
            hint=f"Measure {math.ceil(math.log2(len(classes)))} qubits.",
            where="classes",
        )
    if len(measured) > 1 and bias:
        raise CircuitError(
            "A bias is given where several qubits are measured.",
            hint="Only a circuit with one measured qubit has a bias.",
            where="bias",
        )


def check_labels(classes: Sequence[Label]) -> None:
    """Raises `CircuitError` unless there are two or more different labels of one kind."""
    if not 2 <= len(classes) <= MAX_CLASSES:  # noqa: PLR2004
        raise CircuitError(
            f"A classifier cannot have {len(classes)} classes.",
            hint=f"It has 2 to {MAX_CLASSES}.",
            where="classes",
        )
    kinds = {type(label) for label in classes}
    if kinds not in ({int}, {str}):
        raise CircuitError(
            "The classes are not all whole numbers, nor all strings.", where="classes"
        )
    if len(set(classes)) != len(classes):
        raise CircuitError("A class is named twice.", where="classes")
    beyond = next((c for c in classes if isinstance(c, int) and not -LABELS <= c < LABELS), None)
    if beyond is not None:
        raise CircuitError(
            f"The class {beyond} is no whole number of 64 bits.",
            hint="Name it by a string.",
            where="classes",
        )


def _check_width(encoding: Encoding, qubits: int) -> None:
    width = encoding.width()
    if width > 2**qubits:
        raise CircuitError(
            f"{width} features (after the encoding's steps) need {qubits_for(width)} qubits; the "
            f"circuit has {qubits}.",
            hint="Use a larger register or fewer features.",
            where="features",
        )


def _is_idle(gate: Gate) -> bool:
    return gate.axis == "I" and not gate.controls

"""Small circuits without numpy or onnxruntime, for devices that have neither.

The circuit is multiplied into one matrix when it is loaded, by a state vector in plain Python; a
row then costs that matrix once. The answers are those of every other form, within rounding.
"""

from __future__ import annotations

import cmath
import json
import math
from collections.abc import Sequence
from operator import mul
from pathlib import Path
from typing import TYPE_CHECKING

from scoring.errors import (
    CircuitTooLargeError,
    MissingValueError,
    ModelNotFoundError,
    UnsupportedModelError,
    WrongShapeError,
    WrongTypeError,
)
from scoring.quantum import document, wide
from scoring.quantum.circuit import Circuit, Gate, Label, Model, OneVersusRest
from scoring.quantum.cone import light_cone
from scoring.quantum.features import (
    LEAST_FIRST,
    LEAST_ROUNDING,
    PAIR,
    PRODUCT_TOLERANCE,
    Constant,
    Encoding,
    Power,
    Product,
    Round,
    Scale,
    Step,
    qubits_for,
)

if TYPE_CHECKING:
    from scoring.formats.source import Source

MAX_QUBITS = 6
METADATA_KEY = "fieldpost.circuit.json"
"""Under this key a compiled circuit carries the circuit itself."""
_METADATA_PROPS = 14

Row = list[float]


class PureClassifier:
    """A circuit that answers in plain Python.

    Args:
        model: A circuit of at most 6 qubits, or several that tell one class from the rest.

    Attributes:
        model: See above.
        classes: The labels, in the order of the probabilities.
        features: How many numbers a row has.

    Raises:
        CircuitTooLargeError: It has more qubits.
    """

    def __init__(self, model: Model) -> None:
        self.model = model
        self.classes: tuple[Label, ...] = model.classes
        circuits = model.circuits if isinstance(model, OneVersusRest) else (model,)
        self.features = circuits[0].encoding.features
        self._parts = [(circuit, _folded(circuit)) for circuit in circuits]

    def predict_proba(self, rows: Sequence[Sequence[float]]) -> list[Row]:
        """The class probabilities of each row.

        Raises:
            WrongShapeError, WrongTypeError, MissingValueError: A row is not what the circuit takes.
        """
        return [self._probabilities(row, place) for place, row in enumerate(rows)]

    def predict(self, rows: Sequence[Sequence[float]]) -> list[Label]:
        """The class of each row: the first of the most probable; raises as `predict_proba`."""
        found = self.predict_proba(rows)
        return [self.classes[shares.index(max(shares))] for shares in found]

    def _probabilities(self, row: Sequence[float], place: int) -> Row:
        checked = _checked(row, self.features, place)
        found = [_answer(circuit, matrix, checked) for circuit, matrix in self._parts]
        if isinstance(self.model, OneVersusRest):
            return _normalised([shares[1] for shares in found])
        return found[0]


def load(path: Path) -> PureClassifier:
    """Reads a circuit's own file, or the ONNX file that it was compiled to.

    Raises:
        ModelFileError: It is neither, broken, of another version or too large.
    """
    try:
        with Path(path).open("rb") as file:
            is_json = file.read(64).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{")
    except OSError as error:
        raise ModelNotFoundError(
            f"{path} cannot be read: {error.strerror or error}.", where=str(path)
        ) from error
    return PureClassifier(document.load(path) if is_json else from_onnx(path))


def from_onnx(path: Path) -> Model:
    """The circuit that a compiled file carries; raises UnsupportedModelError where it has none."""
    from scoring.formats.source import open_source  # noqa: PLC0415 - late: most files are JSON

    with open_source(path) as source:
        found = _note(source)
    if found is not None:
        return document.loads(found)
    raise UnsupportedModelError(
        f"{path} holds no circuit.",
        hint="Give a .circuit.json file, or what 'fieldpost quantum compile' wrote.",
        where=str(path),
    )


def _note(source: Source) -> bytes | None:
    """The circuit among the notes of an ONNX file."""
    from scoring.formats import protobuf  # noqa: PLC0415 - late: most files are JSON

    try:
        for entry in protobuf.fields(source, 0, source.size):
            if entry.number != _METADATA_PROPS:
                continue
            pair = {
                part.number: source.read_at(part.start, part.end - part.start)
                for part in protobuf.fields(source, entry.start, entry.end)
            }
            if pair.get(1) == METADATA_KEY.encode():
                return pair.get(2, b"")
    except protobuf.WireError as error:
        raise UnsupportedModelError(
            f"{source.path} is no ONNX file, or is cut off.", where=str(source.path)
        ) from error
    return None


def embedded(model: Model) -> str:
    """The circuit as one line of JSON, without the record of its training."""
    found = document.to_document(model)
    found.pop("record", None)
    return json.dumps(found, separators=(",", ":"), sort_keys=True)


def _checked(row: Sequence[float], features: int, place: int) -> Row:
    where = f"[{place}]"
    if len(row) != features:
        raise WrongShapeError(
            f"A row has {len(row)} features; the circuit takes {features}.", where=where
        )
    for column, value in enumerate(row):
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise WrongTypeError(f"{value!r} is no number.", where=f"{where}[{column}]")
        if not _is_finite(value):
            raise MissingValueError(f"A feature is {value}.", where=f"{where}[{column}]")
    return [float(value) for value in row]


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def _answer(circuit: Circuit, matrix: list[list[Row]], row: Row) -> Row:
    encoded = _encoded(circuit, row)
    norm = sum(map(mul, encoded, encoded))
    sums = [sum(sum(map(mul, line, encoded)) ** 2 for line in lines) for lines in matrix]
    if not circuit.is_binary:
        return _normalised(sums)
    second = min(1.0, max(0.0, sums[0] / norm + circuit.bias))
    return [1.0 - second, second]


def _normalised(values: Row) -> Row:
    total = sum(values)
    count = len(values)
    return [value / total for value in values] if total > 0 else [1.0 / count] * count


def _encoded(circuit: Circuit, row: Row) -> Row:
    """Amplitudes up to a factor: the largest is 1."""
    if circuit.encoding.steps:
        row = _stepped(circuit.encoding, row)
    largest = max(map(abs, row))
    if largest == 0:
        return [1.0] + [0.0] * (len(row) - 1)
    return [value / largest for value in row]


def _stepped(encoding: Encoding, row: Row) -> Row:
    found = row
    for step in encoding.steps:
        found = _apply(step, found)
    return found if wide.is_safe(sum(map(abs, found))) else wide.encoded(encoding, row)


def _apply(step: Step, row: Row) -> Row:
    match step:
        case Scale():
            triples = zip(row, step.offset, step.factor, strict=True)
            return [(value - offset) * factor for value, offset, factor in triples]
        case Constant():
            return [*row, *step.values]
        case Product():
            return [*row, step.scale * math.prod(row)]
        case Power():
            return _power(row, step.times)
        case Round():
            return _rounded(row, step.step)


def _power(row: Row, times: int) -> Row:
    if times == 1:
        return row
    factor = row + [0.0] * (2 ** qubits_for(len(row)) - len(row))
    result = factor
    for _ in range(times - 1):
        result = [one * other for one in result for other in factor]
    return result


def _rounded(row: Row, step: float) -> Row:
    if step <= LEAST_ROUNDING:
        return row
    if len(row) == PAIR:
        a, b, c, d = row
        if abs(a * d - b * c) < PRODUCT_TOLERANCE and abs(a) > LEAST_FIRST:
            return row
    return [round(value / step) * step if math.isfinite(value / step) else value for value in row]


def _folded(circuit: Circuit) -> list[list[Row]]:
    """Real rows for each outcome that counts: as `compile.folding` has them."""
    if circuit.qubits > MAX_QUBITS:
        raise CircuitTooLargeError(
            f"Plain Python serves circuits of up to {MAX_QUBITS} qubits; this has "
            f"{circuit.qubits}.",
            hint="Serve the compiled form: fieldpost quantum compile.",
        )
    outcomes = (1,) if circuit.is_binary else range(len(circuit.classes))
    columns = [_final_state(circuit, place) for place in range(circuit.encoding.width())]
    return [_rows(circuit, columns, outcome) for outcome in outcomes]


def _rows(circuit: Circuit, columns: list[list[complex]], outcome: int) -> list[Row]:
    rows = []
    for index in range(circuit.size):
        bits = (((index >> qubit) & 1) << place for place, qubit in enumerate(circuit.measured))
        if sum(bits) == outcome:
            rows.append([column[index].real for column in columns])
            rows.append([column[index].imag for column in columns])
    return [row for row in rows if any(row)]


def _final_state(circuit: Circuit, place: int) -> list[complex]:
    state = [0j] * circuit.size
    state[place] = 1 + 0j
    for index in light_cone(circuit.gates, circuit.measured):
        gate = circuit.gates[index]
        _turn(state, gate, circuit.parameters[gate.parameter])
    return state


def _turn(state: list[complex], gate: Gate, angle: float) -> None:
    controls = sum(1 << control for control in gate.controls)
    target = 1 << gate.target
    cosine, sine = math.cos(angle / 2), math.sin(angle / 2)
    phase = cmath.rect(1, -angle / 2)
    for low in range(len(state)):
        if low & target or low & controls != controls:
            continue
        high = low | target
        one, other = state[low], state[high]
        match gate.axis:
            case "X":
                state[low] = cosine * one - 1j * sine * other
                state[high] = cosine * other - 1j * sine * one
            case "Y":
                state[low], state[high] = cosine * one - sine * other, sine * one + cosine * other
            case "Z":
                state[low], state[high] = phase * one, phase.conjugate() * other
            case _:
                state[low], state[high] = phase * one, phase * other

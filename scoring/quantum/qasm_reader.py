"""Reads the part of OpenQASM 3 that describes circuits. No numpy here."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple

from scoring.errors import CircuitError
from scoring.quantum.circuit import MAX_GATES, MAX_QUBITS
from scoring.quantum.qasm_gates import PI, GateError, Turn, inverse, shape, turns
from scoring.quantum.qasm_numbers import short, value_of

COMMENT = "// fieldpost.circuit: "
_MAX_DEPTH = 32
_MAX_CALLS = 4 * MAX_GATES
"""Of gates, the defined ones included: definitions that call each other twice double each time."""
_NAME = r"[^\W\d]\w*"
_DECLARATION = re.compile(rf"(qubit|bit)\s*(?:\[\s*(\d{{1,9}})\s*\])?\s*({_NAME})\s*(?:=\s*(.+))?")
_OLD = re.compile(rf"(qreg|creg)\s+({_NAME})\s*\[\s*(\d{{1,9}})\s*\]")
_MEASURE = re.compile(r"measure\s+(.+?)\s*->\s*(.+)|(.+?)\s*=\s*measure\s+(.+)|measure\s+(.+)")
_MODIFIER = re.compile(r"(ctrl|negctrl|inv)\s*(?:\(\s*(\d{1,3})\s*\))?\s*@\s*")
_CALL = re.compile(rf"({_NAME})\s*(?:\((.*)\))?\s*(.*)", re.DOTALL)
_OPERAND = re.compile(rf"({_NAME})\s*(?:\[\s*(-?\d{{1,9}})\s*\])?")
_GATE = re.compile(rf"gate\s+({_NAME})\s*(?:\(([^)]*)\))?\s*([^{{]*)\{{([^}}]*)\}}", re.DOTALL)
_MARKS = re.compile("[;{}]")
_VERSION = re.compile(r"OPENQASM\s+(\d+)(?:\.\d+)?")
_WORDS = frozenset(
    {"if", "else", "for", "while", "switch", "def", "extern", "return", "reset", "delay", "let"}
    | {
        "const",
        "input",
        "output",
        "int",
        "uint",
        "float",
        "angle",
        "bool",
        "array",
        "pragma",
        "box",
        "cal",
        "complex",
        "defcal",
        "defcalgrammar",
        "duration",
        "end",
        "opaque",
        "stretch",
    }
)
"""How statements begin that circuits of this package cannot have."""
_HINT_GATE = "Read are the gates of stdgates.inc, and those that the text defines: gate NAME … {…}"


class _Definition(NamedTuple):
    angles: tuple[str, ...]
    qubits: tuple[str, ...]
    body: tuple[str, ...]


@dataclass
class Found:
    """What a text describes.

    Attributes:
        turns: The gates.
        notes: What our own writer left in a comment.
        calls: How many gates were called, also by definitions.
    """

    turns: list[Turn] = field(default_factory=list)
    notes: dict[str, Any] = field(default_factory=dict)
    qubit_names: dict[str, range] = field(default_factory=dict)
    bit_names: dict[str, range] = field(default_factory=dict)
    definitions: dict[str, _Definition] = field(default_factory=dict)
    results: dict[int, int] = field(default_factory=dict)
    calls: int = 0

    @property
    def qubits(self) -> int:
        """How many qubits are declared."""
        return sum(map(len, self.qubit_names.values()))

    @property
    def measured(self) -> tuple[int, ...]:
        """The measured qubits in the order of the bits that they go to."""
        return tuple(self.results[bit] for bit in sorted(self.results))


def read(text: str) -> Found:
    """Reads a text; raises CircuitError, whose `where` names the line."""
    found = Found(notes=_notes(text))
    for line, statement in _statements(text):
        try:
            _take(found, statement)
        except GateError as error:
            raise CircuitError(
                f"{error}".rstrip(".") + ".", hint=_HINT_GATE, where=f"line {line}"
            ) from error
        except CircuitError as error:
            error.where = error.where or f"line {line}"
            raise
    if not found.qubits:
        raise CircuitError(
            "The text declares no qubits.", hint="OpenQASM 3 does so with: qubit[2] q;"
        )
    return found


def _notes(text: str) -> dict[str, Any]:
    for line in text.splitlines():
        if line.startswith(COMMENT):
            try:
                found = json.loads(line[len(COMMENT) :])
            except (ValueError, RecursionError) as error:
                raise CircuitError(f"Fieldpost's comment is damaged: {error}.") from error
            return found if isinstance(found, dict) else {}
    return {}


def _statements(text: str) -> Iterator[tuple[int, str]]:
    """Statements with the numbers of the lines that they begin in; comments are blanked."""
    plain = re.sub(r"//[^\n]*|/\*.*?\*/", _blank, text, flags=re.DOTALL)
    start = depth = 0
    line = 1
    for mark in _MARKS.finditer(plain):
        depth += (mark[0] == "{") - (mark[0] == "}")
        ends = depth == 0 if mark[0] == ";" else mark[0] == "}" and depth <= 0
        if not ends:
            continue
        part = plain[start : mark.end() if mark[0] == "}" else mark.start()]
        lead = part[: len(part) - len(part.lstrip())]
        if part.strip():
            yield line + lead.count("\n"), part.strip()
        line += plain.count("\n", start, mark.end())
        start, depth = mark.end(), 0
    if plain[start:].strip():
        last = plain[start:].rstrip()
        raise CircuitError(
            "The last statement has no end.", where=f"line {line + last.count(chr(10))}"
        )


def _blank(match: re.Match[str]) -> str:
    return re.sub(r"[^\n]", " ", match[0])


def _take(found: Found, statement: str) -> None:
    word = (re.match(r"\w+", statement) or [""])[0]
    match word:
        case "OPENQASM":
            _check_version(statement)
        case "include" | "barrier":
            return
        case "qubit" | "bit" | "qreg" | "creg":
            _declare(found, statement)
        case "gate":
            _define(found, statement)
        case _ if word in _WORDS:
            raise _unsupported(statement)
        case _ if (measure := _MEASURE.fullmatch(statement)) is not None:
            _measure(found, measure)
        case _:
            _apply(found, statement)


def _check_version(statement: str) -> None:
    version = _VERSION.fullmatch(statement)
    if version is None or version[1] not in ("2", "3"):
        raise CircuitError(f"{statement!r} is no version that is read.", hint="OpenQASM 3 is.")


def _declare(found: Found, statement: str) -> None:
    old = _OLD.fullmatch(statement)
    new = _DECLARATION.fullmatch(statement)
    if old is not None:
        kind, name, size = old[1], old[2], int(old[3])
    elif new is not None:
        kind, name, size = new[1], new[3], int(new[2] or 1)
    else:
        raise _unsupported(statement)
    names = found.qubit_names if kind.startswith("q") else found.bit_names
    if name in found.qubit_names or name in found.bit_names:
        raise CircuitError(f"{name!r} is declared twice.")
    start = sum(map(len, names.values()))
    if names is found.qubit_names and start + size > MAX_QUBITS:
        raise CircuitError(f"More than {MAX_QUBITS} qubits are declared.")
    names[name] = range(start, start + size)
    if new is not None and new[4]:
        _take(found, f"{name} = {new[4]}")


def _define(found: Found, statement: str) -> None:
    match = _GATE.fullmatch(statement)
    if match is None:
        raise _unsupported(statement)
    parts = (part.strip() for part in match[4].split(";"))
    body = tuple(part for part in parts if part and not re.match(r"barrier\b", part))
    found.definitions[match[1]] = _Definition(_names(match[2] or ""), _names(match[3]), body)


def _names(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _measure(found: Found, match: re.Match[str]) -> None:
    source, target = match[1] or match[4] or match[5], match[2] or match[3]
    qubits = _operand(source, found.qubit_names, "qubit")
    if target is None:
        start = sum(map(len, found.bit_names.values())) + len(found.results)
        bits: Sequence[int] = range(start, start + len(qubits))
    else:
        bits = _operand(target, found.bit_names, "bit")
    if len(bits) != len(qubits):
        raise CircuitError(f"{len(qubits)} qubits are measured into {len(bits)} bits.")
    found.results.update(zip(bits, qubits, strict=True))


def _operand(text: str, names: Mapping[str, range], kind: str) -> Sequence[int]:
    match = _OPERAND.fullmatch(text.strip())
    if match is None or match[1] not in names:
        raise CircuitError(
            f"{short(text)} is no {kind} that was declared.",
            hint="Operands are NAME or NAME[NUMBER]; no ranges, and no qubits of a device ($0).",
        )
    register = names[match[1]]
    if match[2] is None:
        return register
    place = int(match[2])
    if not -len(register) <= place < len(register):
        raise CircuitError(f"{text.strip()!r} is not on a register of {len(register)}.")
    return (register[place],)


def _apply(found: Found, statement: str) -> None:
    """A gate call at the top: on single qubits, or on whole registers one after another."""
    modifiers, name, angles, operands = _call(statement, {})
    parts = [_operand(text, found.qubit_names, "qubit") for text in operands]
    whole = {len(part) for part, text in zip(parts, operands, strict=True) if "[" not in text}
    count = max(whole, default=1)
    if any(size not in (1, count) for size in map(len, parts)):
        raise CircuitError("The registers of one statement have different sizes.")
    for place in range(count):
        qubits = [part[place if len(part) > 1 else 0] for part in parts]
        added = _expand(found, modifiers, name, angles, qubits, 0)
        _add(found, added)


def _add(found: Found, added: Sequence[Turn]) -> None:
    done = set(found.results.values())
    for gate in added:
        if done.intersection((gate.target, *gate.controls)):
            raise CircuitError(
                "A gate follows the measurement of its qubit.", hint="Measure at the end only."
            )
    found.turns += added
    if len(found.turns) > MAX_GATES:
        raise CircuitError(f"The circuit has more than {MAX_GATES} gates.")


def _call(
    statement: str, known: Mapping[str, float]
) -> tuple[Sequence[tuple[str, int]], str, list[float], Sequence[str]]:
    """A gate call in parts: modifiers, name, angles, operands."""
    modifiers, name, angles, operands = _parts(statement)
    return modifiers, name, [value_of(part, known) for part in angles], operands


@lru_cache(maxsize=1024)
def _parts(statement: str) -> tuple[tuple[tuple[str, int], ...], str, list[str], tuple[str, ...]]:
    """As `_call`, the angles as texts: what a definition says is looked at once."""
    modifiers: list[tuple[str, int]] = []
    rest = statement
    while (modifier := _MODIFIER.match(rest)) is not None:
        modifiers.append((modifier[1], int(modifier[2] or 1)))
        rest = rest[modifier.end() :]
    match = _CALL.fullmatch(rest)
    if match is None or "@" in rest or not (match[3] or match[1] == "gphase"):
        raise _unsupported(statement)
    operands = tuple(part.strip() for part in match[3].split(",")) if match[3] else ()
    return tuple(modifiers), match[1], _split(match[2] or ""), operands


def _split(text: str) -> list[str]:
    """The parts between commas, but for commas inside of parentheses."""
    parts = re.split(r",(?![^(]*\))", text)
    return [part for part in parts if part.strip()]


def _expand(
    found: Found,
    modifiers: Sequence[tuple[str, int]],
    name: str,
    angles: Sequence[float],
    qubits: Sequence[int],
    depth: int,
) -> list[Turn]:
    if len(set(qubits)) != len(qubits):
        raise CircuitError(f"The gate {name!r} is given a qubit twice.")
    count = sum(number for kind, number in modifiers if kind != "inv")
    controls, operands = tuple(qubits[:count]), qubits[count:]
    result = _plain(found, name, angles, operands, controls, depth)
    if sum(kind == "inv" for kind, _ in modifiers) % 2:
        result = inverse(result)
    place = 0
    for kind, number in modifiers:
        if kind == "negctrl":
            flips = [Turn("X", PI, qubit) for qubit in controls[place : place + number]]
            result = [*flips, *result, *inverse(flips)]
        place += number if kind != "inv" else 0
    return result


def _plain(
    found: Found,
    name: str,
    angles: Sequence[float],
    qubits: Sequence[int],
    controls: tuple[int, ...],
    depth: int,
) -> list[Turn]:
    definition = found.definitions.get(name)
    needed = shape(name) if definition is None else (len(definition.angles), len(definition.qubits))
    if (len(angles), len(qubits)) != needed:
        raise CircuitError(
            f"The gate {name!r} takes {needed[0]} angles and {needed[1]} qubits; given are "
            f"{len(angles)} and {len(qubits)}."
        )
    found.calls += 1
    if found.calls > _MAX_CALLS:
        raise CircuitError(f"The text calls gates more than {_MAX_CALLS} times.")
    if definition is None:
        return turns(name, angles, qubits, controls)
    if depth >= _MAX_DEPTH:
        raise CircuitError(f"The gate {name!r} is defined by itself, or too deeply.")
    return _body(found, definition, angles, qubits, controls, depth)


def _body(
    found: Found,
    definition: _Definition,
    angles: Sequence[float],
    qubits: Sequence[int],
    controls: tuple[int, ...],
    depth: int,
) -> list[Turn]:
    known = dict(zip(definition.angles, angles, strict=True))
    places = dict(zip(definition.qubits, qubits, strict=True))
    result: list[Turn] = []
    for statement in definition.body:
        modifiers, name, values, operands = _call(statement, known)
        unknown = [text for text in operands if text not in places]
        if unknown:
            raise CircuitError(f"{unknown[0]!r} is no qubit of the gate that is defined.")
        inner = [places[text] for text in operands]
        more = [("ctrl", len(controls)), *modifiers] if controls else list(modifiers)
        result += _expand(found, more, name, values, [*controls, *inner], depth + 1)
        if len(result) > MAX_GATES:
            raise CircuitError(f"The circuit has more than {MAX_GATES} gates.")
    return result


def _unsupported(statement: str) -> CircuitError:
    return CircuitError(
        f"{short(statement)} is not understood.",
        hint="Read are declarations, gates with numbers as angles, the modifiers ctrl, negctrl and "
        "inv, gate definitions and measurements at the end.",
    )

"""Circuits as OpenQASM 3, out and in. No numpy here.

What OpenQASM does not know (bias, labels, encoding) goes into a comment, and is found there again.
"""

from __future__ import annotations

import json
from pathlib import Path

from scoring.errors import CircuitError, ModelNotFoundError
from scoring.quantum import document
from scoring.quantum.angles import Elementary, elementary
from scoring.quantum.circuit import Circuit
from scoring.quantum.qasm_reader import COMMENT, read

MAX_BYTES = 16 * 1024 * 1024
_NAMES = {"X": "rx", "Y": "ry", "Z": "rz", "phase": "p", "flip": "z"}
_KEPT = ("features", "encoding", "bias", "classes")


def dumps(circuit: Circuit) -> str:
    """A circuit as OpenQASM 3.

    Angles are written modulo 2π with the sign that a controlled rotation would lose, so that the
    text means the same whether a reader knows the period 4π or not.
    """
    content = document.to_document(circuit)
    notes = json.dumps({key: content[key] for key in _KEPT}, separators=(",", ":"))
    lines = [
        "OPENQASM 3.0;",
        'include "stdgates.inc";',
        f"{COMMENT}{notes}",
        f"qubit[{circuit.qubits}] q;",
        f"bit[{len(circuit.measured)}] c;",
        *map(_line, elementary(circuit)),
        *(f"c[{bit}] = measure q[{qubit}];" for bit, qubit in enumerate(circuit.measured)),
    ]
    return "\n".join(lines) + "\n"


def _line(gate: Elementary) -> str:
    count = len(gate.controls)
    modifier = "" if not count else "ctrl @ " if count == 1 else f"ctrl({count}) @ "
    angle = "" if gate.name == "flip" else f"({gate.angle!r})"
    qubits = ", ".join(f"q[{qubit}]" for qubit in (*gate.controls, gate.target))
    return f"{modifier}{_NAMES[gate.name]}{angle} {qubits};"


def loads(text: str) -> Circuit:
    """A circuit from OpenQASM 3.

    Understood are qubit and bit declarations, the gates of `stdgates.inc` with numbers as angles,
    the modifiers `ctrl`, `negctrl` and `inv`, gate definitions, barriers, and measurements at the
    end. Every rotation gets a parameter of its own. Where nothing is measured, the last qubit is.

    Raises:
        CircuitError: It is no OpenQASM 3, or has something that is not understood; `where` says in
            which line.
    """
    found = read(text)
    notes = {key: value for key, value in found.notes.items() if key in _KEPT}
    gates = [
        {"target": turn.target, "axis": turn.axis, "parameter": place, "controls": [*turn.controls]}
        for place, turn in enumerate(found.turns)
    ]
    measured = found.measured or (found.qubits - 1,)
    content = {
        "format": document.FORMAT,
        "version": document.VERSION,
        "qubits": found.qubits,
        "features": 2**found.qubits,
        "gates": gates,
        "parameters": [turn.angle for turn in found.turns],
        "measured": list(measured),
        "classes": list(range(2 ** len(measured))),
    }
    model = document.from_document(content | notes)
    assert isinstance(model, Circuit)
    return model


def load(path: Path) -> Circuit:
    """Reads a file of OpenQASM 3.

    Raises:
        ModelNotFoundError: It cannot be read.
        CircuitError: As `loads`.
    """
    try:
        with Path(path).open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ModelNotFoundError(
            f"{path} cannot be read: {error.strerror or error}.", where=str(path)
        ) from error
    if len(data) > MAX_BYTES:
        raise CircuitError(f"{path} is over {MAX_BYTES >> 20} MiB.", where=str(path))
    try:
        return loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise CircuitError(f"{path} is no text.", where=str(path)) from error

"""Circuits as Q# programs that run with the current `qdk`. No numpy here.

The library that this package follows is not part of the current kit; the program written here needs
nothing but its standard library. `Classify` prepares a row of features that has gone through the
encoding's steps, runs the circuit many times and answers the class.
"""

from __future__ import annotations

from collections.abc import Sequence

from scoring.errors import UnsupportedModelError
from scoring.quantum.angles import Elementary, elementary
from scoring.quantum.circuit import Circuit, Label

_ROTATIONS = {"X": "Rx", "Y": "Ry", "Z": "Rz"}
_PROGRAM = """\
// Written by Fieldpost. Run it with Python:
//     from qdk import qsharp
//     qsharp.init()
//     qsharp.eval(open("FILE.qs").read())
//     qsharp.eval("Main()")
import Std.Arrays.*;
import Std.Convert.*;
import Std.Math.*;
import Std.StatePreparation.*;

/// The gates, after the rows have been prepared.
operation ApplyCircuit(qs : Qubit[]) : Unit {{
{gates}
}}

/// A row of encoded features as amplitudes; feature k is that of |k⟩, qubit 0 the least significant
/// bit. A row of zeros is |0…0⟩.
operation PrepareRow(row : Double[], qs : Qubit[]) : Unit {{
    mutable largest = 0.0;
    for value in row {{
        set largest = MaxD(largest, AbsD(value));
    }}
    if largest > 0.0 {{
        mutable norm = 0.0;
        for value in row {{
            set norm += (value / largest) * (value / largest);
        }}
        let length = Sqrt(norm);
        mutable amplitudes : Double[] = [];
        for value in row {{
            set amplitudes += [value / largest / length];
        }}
        PreparePureStateD(Padded(-{size}, 0.0, amplitudes), Reversed(qs));
    }}
}}

/// One run: the number that the measured qubits show.
operation Outcome(row : Double[]) : Int {{
    use qs = Qubit[{qubits}];
    PrepareRow(row, qs);
    ApplyCircuit(qs);
    mutable outcome = 0;
{measurements}
    ResetAll(qs);
    return outcome;
}}

/// How often each outcome came in `shots` runs, as shares.
operation Shares(row : Double[], shots : Int) : Double[] {{
    mutable counts = [0, size = {outcomes}];
    for _ in 1..shots {{
        let outcome = Outcome(row);
        set counts w/= outcome <- counts[outcome] + 1;
    }}
    return Mapped(count -> IntAsDouble(count) / IntAsDouble(shots), counts);
}}

/// The label of a row.
operation Classify(row : Double[], shots : Int) : {kind} {{
    let shares = Shares(row, shots);
    let labels = [{labels}];
{decision}
}}

operation Main() : {kind} {{
    return Classify([{example}], 1000);
}}
"""
_BINARY = "    return labels[shares[1] + {bias} > 0.5 ? 1 | 0];"
_SEVERAL = """\
    mutable best = 0;
    for place in 1..{last} {{
        if shares[place] > shares[best] {{
            set best = place;
        }}
    }}
    return labels[best];"""


def dumps(circuit: Circuit, example: Sequence[float] = ()) -> str:
    """A circuit as a Q# program.

    Args:
        circuit: What is written. The steps of its encoding are not: rows are given encoded.
        example: Encoded features that `Main` classifies; by default ones.

    Raises:
        UnsupportedModelError: A label cannot be written in Q#.
    """
    row = list(example) or [1.0] * circuit.encoding.width()
    return _PROGRAM.format(
        gates="\n".join(f"    {_line(gate)}" for gate in elementary(circuit)) or "    // none",
        size=circuit.size,
        qubits=circuit.qubits,
        measurements="\n".join(_measurement(circuit)),
        outcomes=2 ** len(circuit.measured),
        kind="Int" if isinstance(circuit.classes[0], int) else "String",
        labels=", ".join(map(_label, circuit.classes)),
        decision=_decision(circuit),
        example=", ".join(map(_double, row)),
    )


def _line(gate: Elementary) -> str:
    controls = ", ".join(f"qs[{qubit}]" for qubit in gate.controls)
    target = f"qs[{gate.target}]"
    if gate.name == "flip":
        return f"Controlled Z([{controls}], {target});" if controls else f"Z({target});"
    name, angle = _ROTATIONS.get(gate.name, "R1"), _double(gate.angle)
    if controls:
        return f"Controlled {name}([{controls}], ({angle}, {target}));"
    return f"{name}({angle}, {target});"


def _measurement(circuit: Circuit) -> list[str]:
    return [
        f"    if M(qs[{qubit}]) == One {{ set outcome += {1 << place}; }}"
        for place, qubit in enumerate(circuit.measured)
    ]


def _decision(circuit: Circuit) -> str:
    if circuit.is_binary:
        return _BINARY.format(bias=_double(circuit.bias))
    return _SEVERAL.format(last=len(circuit.classes) - 1)


def _double(value: float) -> str:
    """A number as Q# reads it: with a point, whatever the exponent."""
    text = repr(float(value))
    mantissa, mark, exponent = text.partition("e")
    return (mantissa if "." in mantissa else mantissa + ".0") + mark + exponent


def _label(label: Label) -> str:
    if isinstance(label, int):
        if not -(2**63) <= label < 2**63:
            raise UnsupportedModelError(f"The label {label} is no whole number of Q#.")
        return str(label)
    escaped = label.replace("\\", "\\\\").replace('"', '\\"')
    if not escaped.isprintable():
        raise UnsupportedModelError(f"The label {label!r} cannot be written in Q#.")
    return f'"{escaped}"'

"""OpenQASM 3: what is written, what is read, and what is refused with its line."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scoring.errors import CircuitError, ModelNotFoundError
from scoring.quantum import qasm, simulate
from scoring.quantum.circuit import Circuit, Gate
from scoring.quantum.features import Encoding, Scale
from tests.support import dense
from tests.support.circuits import random_circuit

HEAD = 'OPENQASM 3.0;\ninclude "stdgates.inc";\nqubit[3] q;\n'


def unitary(body: str, head: str = HEAD) -> Any:
    """The matrix of a text, up to a phase: its first entry that is not small is positive."""
    return _without_phase(dense.unitary(qasm.loads(head + body)))


def _without_phase(matrix: Any) -> Any:
    entry = matrix.flat[np.flatnonzero(np.abs(matrix).ravel() > 1e-6)[0]]
    return matrix * (abs(entry) / entry)


def standard(name: str, *angles: float) -> Any:
    """Matrices of the standard library, from its definition."""
    half = 1 / math.sqrt(2)
    if name == "p":
        return np.diag([1, np.exp(1j * angles[0])])
    return {
        "id": np.eye(2),
        "x": dense.PAULIS["X"],
        "y": dense.PAULIS["Y"],
        "z": dense.PAULIS["Z"],
        "h": half * np.array([[1, 1], [1, -1]]),
        "s": np.diag([1, 1j]),
        "sdg": np.diag([1, -1j]),
        "t": np.diag([1, np.exp(0.25j * np.pi)]),
        "tdg": np.diag([1, np.exp(-0.25j * np.pi)]),
        "sx": 0.5 * np.array([[1 + 1j, 1 - 1j], [1 - 1j, 1 + 1j]]),
    }[name]


def on_register(gate: Any, target: int, controls: tuple[int, ...] = (), qubits: int = 3) -> Any:
    on = dense.kron([dense.ONE if q in controls else np.eye(2) for q in range(qubits)])
    turned = dense.kron(
        [gate if q == target else dense.ONE if q in controls else np.eye(2) for q in range(qubits)]
    )
    return np.eye(1 << qubits) - on + turned if controls else turned


def same(one: Any, other: Any) -> bool:
    return bool(np.abs(_without_phase(one) - _without_phase(other)).max() < 1e-12)


@pytest.mark.parametrize("name", ["id", "x", "y", "z", "h", "s", "sdg", "t", "tdg", "sx", "p"])
@pytest.mark.parametrize("controls", [(), (0,), (2, 0)])
def test_gates_of_the_library_and_their_controlled_forms(
    name: str, controls: tuple[int, ...]
) -> None:
    angles = (0.7,) if name == "p" else ()
    operands = ", ".join(f"q[{qubit}]" for qubit in (*controls, 1))
    call = f"{name}{'(0.7)' if angles else ''} {operands};"
    body = f"ctrl({len(controls)}) @ {call}" if controls else call
    assert same(unitary(body), on_register(standard(name, *angles), 1, controls))


@pytest.mark.parametrize(
    ("body", "equal"),
    [
        ("cx q[0], q[1];", "ctrl @ x q[0], q[1];"),
        ("CX q[0], q[1];", "ctrl @ x q[0], q[1];"),
        ("ccx q[0], q[1], q[2];", "ctrl(2) @ x q[0], q[1], q[2];"),
        ("crx(0.3) q[0], q[1];", "ctrl @ rx(0.3) q[0], q[1];"),
        ("cp(0.3) q[0], q[1];", "ctrl @ p(0.3) q[0], q[1];"),
        ("cphase(pi/8) q[0], q[1];", "cu1(0.125*π) q[0], q[1];"),
        ("swap q[0], q[2];", "cx q[0], q[2]; cx q[2], q[0]; cx q[0], q[2];"),
        ("cswap q[0], q[1], q[2];", "ctrl @ swap q[0], q[1], q[2];"),
        ("negctrl @ rx(0.4) q[0], q[1];", "x q[0]; crx(0.4) q[0], q[1]; x q[0];"),
        ("inv @ crx(0.4) q[0], q[1];", "crx(-0.4) q[0], q[1];"),
        ("inv @ s q[0];", "sdg q[0];"),
        ("U(pi/2, 0, pi) q[0];", "h q[0];"),
        ("u2(0, pi) q[0];", "h q[0];"),
        ("ry(sqrt(2) ** 2 - (1 + 1) / 4) q[0];", "ry(1.5) q[0];"),
        ("h q;", "h q[0]; h q[1]; h q[2];"),
        ("rx(1) q[-1]; barrier q;", "rx(1) q[2];"),
        ("/* a\n comment */ x q[0]; // another", "x q[0];"),
        ("gate turn(a, b) u, v { rx(a/2) u; cry(b) u, v; } turn(1, 2) q[2], q[0];",
         "rx(0.5) q[2]; cry(2) q[2], q[0];"),
        ("gate both u, v { h u; ctrl @ t u, v; } inv @ both q[0], q[1];",
         "inv @ ctrl @ t q[0], q[1]; h q[0];"),
        ("gate one u { h u; } gate two u, v { one v; one u; } ctrl @ two q[0], q[1], q[2];",
         "ch q[0], q[2]; ch q[0], q[1];"),
        ("gphase(pi/3); rx(1) q[0];", "rx(1) q[0];"),
        ("ctrl @ gphase(0.7) q[1];", "p(0.7) q[1];"),
        ("ctrl(2) @ gphase(0.7) q[1], q[0];", "cp(0.7) q[0], q[1];"),
        ("negctrl @ gphase(0.7) q[1];", "x q[1]; p(0.7) q[1]; x q[1];"),
        ("inv @ ctrl @ gphase(0.7) q[1];", "p(-0.7) q[1];"),
        ("gate mine(t) a { gphase(t/2); rz(t) a; } ctrl @ mine(0.7) q[0], q[1];",
         "cp(0.7) q[0], q[1];"),
        ("gate all(t) { gphase(t); } ctrl @ all(0.7) q[2];", "p(0.7) q[2];"),
        ("cu(pi/2, 0, pi, 0) q[0], q[1];", "ch q[0], q[1];"),
        ("cu(0, 0.3, 0.4, 0.7) q[0], q[1];", "p(0.7) q[0]; cp(0.7) q[0], q[1];"),
        ("cu(1, -pi/2, pi/2, 0.7) q[0], q[1];", "p(0.7) q[0]; crx(1) q[0], q[1];"),
        ("gate bell a, b { h a; barrier a, b; cx a, b; } bell q[0], q[1];",
         "h q[0]; cx q[0], q[1];"),
        ("rx(\u2107) q[0];", "rx(euler) q[0];"),
    ],
)  # fmt: skip
def test_texts_that_mean_the_same(body: str, equal: str) -> None:
    assert same(unitary(body), unitary(equal))


def test_older_declarations_are_read() -> None:
    old = 'OPENQASM 2.0; include "qelib1.inc"; qreg q[2]; creg c[1]; h q[0]; measure q[0] -> c[0];'
    circuit = qasm.loads(old)
    assert (circuit.qubits, circuit.measured) == (2, (0,))


@pytest.mark.parametrize(
    ("body", "measured"),
    [
        ("", (2,)),
        ("measure q[1];", (1,)),
        ("bit[2] c; c[0] = measure q[1]; c[1] = measure q[0];", (1, 0)),
        ("bit[2] c; c[1] = measure q[1]; c[0] = measure q[0];", (0, 1)),
        ("bit[3] c; c = measure q;", (0, 1, 2)),
        ("bit[3] c = measure q;", (0, 1, 2)),
        ("bit[3] c; measure q -> c;", (0, 1, 2)),
    ],
)
def test_measurements_name_the_measured_qubits(body: str, measured: tuple[int, ...]) -> None:
    assert qasm.loads(HEAD + body).measured == measured


def test_the_sign_of_a_controlled_rotation_is_written_out() -> None:
    circuit = Circuit(3, (Gate(2, "Y", 0, (0, 1)),), (2 * math.pi + 0.5,))
    text = qasm.dumps(circuit)
    assert "ctrl(2) @ ry(0.5" in text
    assert "ctrl @ z q[0], q[1];" in text
    assert same(dense.unitary(qasm.loads(text)), dense.unitary(circuit))
    half = qasm.dumps(circuit.at([0.5]))
    assert "z q" not in half.replace("rz", "")


@pytest.mark.parametrize("turns", [-3, -2, -1, 0, 1, 2, 3])
@pytest.mark.parametrize("rest", [0.0, 1e-17, 1.0, 2 * math.pi - 1e-15])
def test_whole_turns_keep_their_sign(turns: int, rest: float) -> None:
    gates = (Gate(0, "Y", 0), Gate(1, "X", 1, (0,)), Gate(0, "Y", 0))
    circuit = Circuit(2, gates, (1.0, turns * 2 * math.pi + rest), measured=(0,))
    again = qasm.loads(qasm.dumps(circuit))
    rows = np.random.default_rng(0).normal(size=(4, 4))
    one, other = (simulate.class_probabilities(each, rows) for each in (circuit, again))
    assert np.abs(one - other).max() < 1e-12


def test_what_openqasm_does_not_know_comes_back_from_a_comment() -> None:
    scale = Encoding(4, (Scale((1.0,) * 4, (2.0,) * 4),))
    circuit = random_circuit(2, 6, 0, encoding=scale, classes=("no", "yes"), bias=0.25)
    again = qasm.loads(qasm.dumps(circuit))
    assert (again.encoding, again.classes, again.bias) == (scale, ("no", "yes"), 0.25)


@pytest.mark.parametrize(
    ("body", "line", "message"),
    [
        ("rx(0.1) q[3];", 4, "not on a register of 3"),
        ("rx(0.1) r[0];", 4, "no qubit that was declared"),
        ("foo(0.1) q[0];", 4, "'foo' is not known"),
        ("rx q[0];", 4, "takes 1 angles and 1 qubits"),
        ("rx(0.1) q[0], q[1];", 4, "takes 1 angles and 1 qubits"),
        ("\nrx(theta) q[0];", 5, "'theta' is no number"),
        ("rx(1/0) q[0];", 4, "is no number"),
        ("rx(10**10**10) q[0];", 4, "is no number"),
        ("rx(1e999) q[0];", 4, "not finite"),
        ("rx(__import__('os')) q[0];", 4, "is no number"),
        ("cx q[0], q[0];", 4, "a qubit twice"),
        ("ctrl @ U(1, 2, 3) q[0], q[1];", 4, "cannot be controlled"),
        ("if (c == 1) { x q[0]; }", 4, "not understood"),
        ("input float theta;", 4, "not understood"),
        ("reset q[0];", 4, "not understood"),
        ("measure q[0]; x q[0];", 4, "follows the measurement"),
        ("bit[2] c; c = measure q;", 4, "3 qubits are measured into 2 bits"),
        ("qubit[3] q;", 4, "declared twice"),
        ("qubit[40] r;", 4, "More than 30 qubits"),
        ("gate g a { g a; } g q[0];", 4, "defined by itself"),
        ("gate g a { x b; } g q[0];", 4, "no qubit of the gate"),
        ("x q[0]", 4, "no end"),
        ("defcal x $0 { play(drive($0), wave); }", 4, "'defcal x .* is not understood"),
        ('defcalgrammar "openpulse";', 4, "not understood"),
        ("cal { extern port d0; }", 4, "not understood"),
        ("duration d = 100ns;", 4, "'duration d = 100ns' is not understood"),
        ("opaque mine a;", 4, "not understood"),
        ("pow(2) @ x q[0];", 4, "'pow.2. @ x q.0.' is not understood"),
        ("x $0;", 4, "'.0' is no qubit that was declared"),
        ("h q[0:1];", 4, "'q.0:1.' is no qubit that was declared"),
        ("rx(" + "-" * 100_000 + "1) q[0];", 4, "'-{60}' is no number"),
        ("gphase q[0];", 4, "takes 1 angles and 0 qubits"),
        ("x;", 4, "'x' is not understood"),
    ],
)
def test_what_is_not_understood_is_refused_with_its_line(
    body: str, line: int, message: str
) -> None:
    with pytest.raises(CircuitError, match=message) as caught:
        qasm.loads(HEAD + body)
    assert caught.value.where == f"line {line}"


def test_definitions_that_grow_without_bounds_are_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scoring.quantum.qasm_reader.MAX_GATES", 2000)  # else it takes seconds
    body = "gate g0 a { x a; } " + "".join(
        f"gate g{k} a {{ {f'g{k - 1} a; ' * 20} }} " for k in range(1, 12)
    )
    with pytest.raises(CircuitError, match="more than 2000 gates"):
        qasm.loads(HEAD + body + "g11 q[0];")


def test_definitions_that_do_nothing_very_often_are_stopped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("scoring.quantum.qasm_reader._MAX_CALLS", 2000)  # else it takes seconds
    body = "gate g0 a { id a; } " + "".join(
        f"gate g{k} a {{ {f'g{k - 1} a; ' * 20} }} " for k in range(1, 12)
    )
    with pytest.raises(CircuitError, match="calls gates more than 2000 times"):
        qasm.loads(HEAD + body + "g11 q[0];")


@pytest.mark.parametrize("text", ["", "OPENQASM 3.0;", "OPENQASM 1.0; qubit q;", "{", "\0"])
def test_what_is_no_circuit_is_refused(text: str) -> None:
    with pytest.raises(CircuitError):
        qasm.loads(text)


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "a.qasm"
    path.write_text(HEAD + "x q[0];")
    assert len(qasm.load(path).gates) == 1
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(CircuitError, match="no text"):
        qasm.load(path)
    with pytest.raises(ModelNotFoundError):
        qasm.load(tmp_path / "absent.qasm")


def test_qdk_reads_what_is_written() -> None:
    openqasm = pytest.importorskip("qdk.openqasm", reason="qdk is not installed")
    for seed in range(3):
        circuit = random_circuit(3, 8, seed, axes="XYZ")
        counts = openqasm.run(qasm.dumps(circuit), shots=4000, seed=seed)
        share = np.mean([str(result).count("One") for result in counts])
        state = np.zeros((1, 8))
        state[0, 0] = 1
        assert abs(share - dense.outcomes(circuit, state)[0, 1]) < 0.05

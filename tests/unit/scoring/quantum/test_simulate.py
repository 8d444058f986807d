"""What circuits answer, by hand and by independent simulators."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from scoring.errors import MissingValueError, WrongShapeError
from scoring.quantum import simulate
from scoring.quantum.circuit import Circuit, Gate, OneVersusRest
from scoring.quantum.features import Encoding
from tests.support import dense

QUARTER = math.pi / 2


def test_one_rotation_by_hand() -> None:
    circuit = Circuit(1, (Gate(0, "Y", 0),), (math.pi / 3,))
    found = simulate.outcome_probabilities(circuit, [[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]])
    first = math.sin(math.pi / 6) ** 2
    both = (math.sin(math.pi / 6) + math.cos(math.pi / 6)) ** 2 / 2
    expected = [[1 - first, first], [first, 1 - first], [1 - both, both]]
    assert np.allclose(found, expected, rtol=0, atol=1e-15)


def test_the_last_qubit_is_the_upper_half_of_the_amplitudes() -> None:
    circuit = Circuit(2, (), ())
    ones = simulate.probability_of_one(circuit, [[1.0, 2.0, 3.0, 4.0]])
    assert ones[0] == pytest.approx(25 / 30, abs=1e-15)


def test_a_control_has_to_be_one() -> None:
    circuit = Circuit(2, (Gate(1, "X", 0, (0,)),), (math.pi,))
    found = simulate.probability_of_one(circuit, [[1.0, 0, 0, 0], [0, 1.0, 0, 0]])
    assert np.allclose(found, [0.0, 1.0], rtol=0, atol=1e-15)


def test_a_controlled_phase_is_seen_between_two_rotations() -> None:
    gates = (Gate(0, "Y", 0), Gate(1, "I", 1, (0,)), Gate(0, "Y", 0))
    circuit = Circuit(2, gates, (QUARTER, 2 * math.pi), measured=(0,))
    assert simulate.probability_of_one(circuit, [[1.0, 0, 0, 0]])[0] == pytest.approx(0, abs=1e-15)
    still = circuit.at([QUARTER, 0.0])
    assert simulate.probability_of_one(still, [[1.0, 0, 0, 0]])[0] == pytest.approx(1, abs=1e-15)


def test_the_first_measured_qubit_is_the_least_significant() -> None:
    row = [[0.0, 0.0, 1.0, 0.0]]  # qubit 1 is one
    first = Circuit(2, (), (), measured=(1, 0), classes=(0, 1, 2, 3))
    assert simulate.outcome_probabilities(first, row).tolist() == [[0, 1, 0, 0]]
    second = Circuit(2, (), (), measured=(0, 1), classes=(0, 1, 2, 3))
    assert simulate.outcome_probabilities(second, row).tolist() == [[0, 0, 1, 0]]


def test_the_bias_moves_the_border_and_stays_within_probabilities() -> None:
    rows = [[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]
    up = Circuit(1, (), (), bias=0.25, classes=("no", "yes"))
    assert simulate.class_probabilities(up, rows)[:, 1].tolist() == pytest.approx([0.25, 1, 0.75])
    assert simulate.labels(up, rows).tolist() == ["no", "yes", "yes"]
    down = Circuit(1, (), (), bias=-0.25)
    assert simulate.class_probabilities(down, rows)[:, 1].tolist() == pytest.approx([0, 0.75, 0.25])


def test_exactly_one_half_is_the_first_class() -> None:
    decided = simulate.decide(Circuit(1, (), ()), np.array([[0.5, 0.5]]))
    assert decided.argmax(axis=1).tolist() == [0]
    over = simulate.decide(Circuit(1, (), ()), np.array([[0.5, np.nextafter(0.5, 1)]]))
    assert over.argmax(axis=1).tolist() == [1]


def test_outcomes_beyond_the_last_class_are_left_out() -> None:
    circuit = Circuit(2, (), (), measured=(0, 1), classes=("a", "b", "c"))
    found = simulate.class_probabilities(circuit, [[1.0, 1.0, 1.0, 3.0], [0.0, 0.0, 0.0, 1.0]])
    assert np.allclose(found, 1 / 3, rtol=0, atol=1e-15)
    assert simulate.labels(circuit, [[0.0, 0.0, 1.0, 5.0]]).tolist() == ["c"]


def test_one_against_rest_takes_the_surest() -> None:
    def towards(angle: float) -> Circuit:
        return Circuit(1, (Gate(0, "Y", 0),), (angle,))

    model = OneVersusRest((towards(0.0), towards(QUARTER), towards(math.pi)), ("a", "b", "c"))
    found = simulate.class_probabilities(model, [[1.0, 0.0], [0.0, 1.0]])
    assert np.allclose(found, [[0, 1 / 3, 2 / 3], [2 / 3, 1 / 3, 0]], rtol=0, atol=1e-15)
    assert simulate.labels(model, [[1.0, 0.0], [0.0, 1.0]]).tolist() == ["c", "a"]


def test_rows_are_checked() -> None:
    circuit = Circuit(1, (), ())
    with pytest.raises(WrongShapeError):
        simulate.labels(circuit, [[1.0]])
    with pytest.raises(MissingValueError):
        simulate.labels(circuit, [[1.0, float("nan")]])


def test_no_rows_have_no_answers() -> None:
    circuit = Circuit(2, (Gate(0, "X", 0),), (1.0,))
    assert simulate.outcome_probabilities(circuit, np.empty((0, 4))).shape == (0, 2)
    assert simulate.labels(circuit, np.empty((0, 4))).shape == (0,)


def random_circuit(seed: int, qubits: int = 4, gates: int = 15) -> Circuit:
    """Gates about X, Y and Z with up to two controls, angles far beyond 4π."""
    random = np.random.default_rng(seed)
    listed = []
    for place in range(gates):
        order = [int(qubit) for qubit in random.permutation(qubits)]
        controls = tuple(order[1 : 1 + int(random.integers(0, 3))])
        listed.append(Gate(order[0], str(random.choice(list("XYZ"))), place, controls))
    return Circuit(qubits, tuple(listed), tuple(random.uniform(-40, 40, gates)))


def test_fourteen_qubits_against_the_same_gates_one_by_one() -> None:
    circuit = random_circuit(0, qubits=14, gates=20)
    states = dense.states(circuit, samples=2)
    cube = states.reshape(2, *[2] * 14).astype(complex)
    for gate in circuit.gates:  # einsum over one axis, controls by masking: another road
        angle = circuit.parameters[gate.parameter]
        turn = dense.matrix(Gate(0, gate.axis, 0), angle, 1)
        axis = 14 - gate.target
        moved = np.moveaxis(np.tensordot(turn, cube, axes=(1, axis)), 0, axis)
        mask = np.ones((1,) * 15, dtype=bool)
        for control in gate.controls:
            shape = [1] * 15
            shape[14 - control] = 2
            mask = mask & np.array([False, True]).reshape(shape)
        cube = np.where(mask, moved, cube)
    expected = (np.abs(cube[:, 1]) ** 2).reshape(2, -1).sum(axis=1)
    found = simulate.probability_of_one(circuit, states)
    assert np.abs(found - expected).max() < 1e-13


def test_pennylane_answers_alike() -> None:
    qml = pytest.importorskip("pennylane", reason="PennyLane is not installed")
    rotations = {"X": qml.RX, "Y": qml.RY, "Z": qml.RZ}
    for seed in range(5):
        circuit = random_circuit(seed)
        states = dense.states(circuit, samples=3, seed=seed)
        wires = list(reversed(range(circuit.qubits)))  # PennyLane's first wire is our last qubit

        def operations(state: Any, circuit: Circuit = circuit, wires: list[int] = wires) -> Any:
            yield qml.StatePrep(state, wires=range(circuit.qubits))
            for gate in circuit.gates:
                turn = rotations[gate.axis](circuit.parameters[gate.parameter], wires[gate.target])
                on = [wires[control] for control in gate.controls]
                yield qml.ctrl(turn, control=on) if on else turn

        device = qml.device("default.qubit")
        for row, state in enumerate(states):
            tape = qml.tape.QuantumScript(list(operations(state)), [qml.probs(wires=[0])])
            expected = device.execute(tape)[1]
            found = simulate.probability_of_one(circuit, states)[row]
            assert abs(found - expected) < 1e-12


def test_the_current_q_sharp_answers_alike() -> None:
    qsharp = pytest.importorskip("qdk.qsharp", reason="qdk is not installed")
    for seed in range(3):
        circuit = random_circuit(seed, qubits=3, gates=10)
        qsharp.init()
        qsharp.eval("use qs = Qubit[3]; H(qs[0]);")
        for gate in circuit.gates:
            angle = repr(circuit.parameters[gate.parameter])
            turn = f"(Pauli{gate.axis}, {angle}, qs[{gate.target}])"
            controls = ", ".join(f"qs[{control}]" for control in gate.controls)
            qsharp.eval(f"Controlled R([{controls}], {turn});" if controls else f"R{turn};")
        amplitudes = qsharp.dump_machine().as_dense_state()
        # Its first qubit is the most significant bit of an index.
        expected = sum(abs(value) ** 2 for index, value in enumerate(amplitudes) if index & 1)
        found = simulate.probability_of_one(circuit, [[1.0, 1.0] + [0.0] * 6])[0]
        assert abs(found - expected) < 1e-12


def test_encoding_steps_are_part_of_the_circuit() -> None:
    circuit = Circuit(2, (), (), encoding=Encoding(3))
    assert simulate.probability_of_one(circuit, [[0.0, 3.0, 4.0]])[0] == pytest.approx(0.64)

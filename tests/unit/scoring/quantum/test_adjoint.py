"""Gradients by blocks: threads, portions, real circuits and shared angles change nothing."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from scoring.errors import CircuitTooLargeError
from scoring.quantum import adjoint, layers, memory, simulate
from scoring.quantum.adjoint import AdjointPlan
from scoring.quantum.circuit import Circuit, Gate, parameters_needed
from tests.support import dense


def ready(structure: str, qubits: int, samples: int) -> tuple[Circuit, NDArray[np.float64]]:
    gates = layers.parse(structure, qubits)
    random = np.random.default_rng(qubits)
    angles = random.uniform(-3, 3, parameters_needed(gates))
    circuit = Circuit(qubits, tuple(gates), tuple(angles))
    return circuit, dense.states(circuit, samples)


def weigh(outcomes: NDArray[np.float64], where: slice) -> NDArray[np.float64]:
    """Depends on the place and on the probabilities, as a loss does."""
    places = np.arange(where.start, where.stop)[:, None]
    found: NDArray[np.float64] = np.cos(places) * np.array([0.5, 1.0]) + outcomes**2
    return found


@pytest.mark.parametrize("structure", ["local-z local-x cyclic-x local-y", "local-y cyclic-y"])
@pytest.mark.parametrize("qubits", [7, 9])
def test_it_agrees_with_differences(structure: str, qubits: int) -> None:
    circuit, states = ready(structure, qubits, samples=30)

    def loss(angles: NDArray[np.float64]) -> float:
        found = dense_free(circuit.at(angles), states)
        places = np.arange(len(states))[:, None]
        return float((np.cos(places) * [0.5, 1.0] * found + found**3 / 3).sum())

    _, gradient = AdjointPlan(circuit).gradient(circuit.parameters, states, weigh)
    at = np.array(circuit.parameters)
    for place in range(0, len(at), 3):
        step = np.zeros(len(at))
        step[place] = 1e-5
        numeric = (loss(at + step) - loss(at - step)) / 2e-5
        assert gradient[place] == pytest.approx(numeric, abs=1e-8)


def dense_free(circuit: Circuit, states: NDArray[np.float64]) -> NDArray[np.float64]:
    return simulate.measure(simulate.run(circuit, states.T), circuit.measured)


def test_threads_and_portions_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    circuit, states = ready("local-z local-x cyclic-x local-z cyclic-y", 8, samples=50)
    plan = AdjointPlan(circuit)
    monkeypatch.setattr(adjoint, "_PORTION_BYTES", 1 << 30)
    monkeypatch.setenv("FIELDPOST_QUANTUM_THREADS", "1")
    whole, gradient = plan.gradient(circuit.parameters, states, weigh)
    monkeypatch.setattr(adjoint, "_PORTION_BYTES", 7 << (8 + 4))
    monkeypatch.setattr(adjoint, "_LEAST_FOR_THREADS", 1)
    monkeypatch.setenv("FIELDPOST_QUANTUM_THREADS", "3")
    for _ in range(3):
        parts, found = plan.gradient(circuit.parameters, states, weigh)
        assert np.abs(parts - whole).max() < 1e-14
        assert np.abs(found - gradient).max() < 1e-13
    again = plan.gradient(circuit.parameters, states, weigh)
    assert again[1].tolist() == found.tolist()  # to the last bit, in whatever order threads end


def test_without_threadpoolctl_it_works_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    circuit, states = ready("local-x cyclic-x", 6, samples=9)
    expected = AdjointPlan(circuit).gradient(circuit.parameters, states, weigh)[1]
    monkeypatch.setattr(adjoint, "_controller", lambda: None)
    monkeypatch.setattr(adjoint, "_PORTION_BYTES", 1 << (6 + 4))
    monkeypatch.setattr(adjoint, "_LEAST_FOR_THREADS", 1)
    monkeypatch.setenv("FIELDPOST_QUANTUM_THREADS", "2")
    found = AdjointPlan(circuit).gradient(circuit.parameters, states, weigh)[1]
    assert np.abs(found - expected).max() < 1e-13


def test_gates_that_share_an_angle_add_up() -> None:
    gates = (Gate(0, "X", 0), Gate(1, "X", 0, (0,)), Gate(1, "Y", 1))
    shared = Circuit(2, gates, (0.3, 0.8))
    single = Circuit(
        2,
        (gates[0], gates[1]._replace(parameter=1), gates[2]._replace(parameter=2)),
        (0.3, 0.3, 0.8),
    )
    states = dense.states(shared)
    found = AdjointPlan(shared).gradient(shared.parameters, states, weigh)[1]
    parts = AdjointPlan(single).gradient(single.parameters, states, weigh)[1]
    assert np.allclose(found, [parts[0] + parts[1], parts[2]], rtol=0, atol=1e-14)


def test_what_nothing_depends_on_has_no_slope() -> None:
    circuit = Circuit(3, (Gate(0, "X", 0), Gate(2, "Y", 1), Gate(2, "Z", 2)), (0.3, 0.4, 0.5))
    found = AdjointPlan(circuit).gradient(circuit.parameters, dense.states(circuit), weigh)[1]
    assert found[0] == 0
    assert found[2] == 0
    assert found[1] != 0
    nothing = Circuit(2, (), ())
    outcomes, gradient = AdjointPlan(nothing).gradient((), dense.states(nothing), weigh)
    assert gradient.shape == (0,)
    assert np.abs(outcomes - dense.outcomes(nothing, dense.states(nothing))).max() < 1e-15


def test_gates_wider_than_blocks() -> None:
    gates = (Gate(0, "Y", 0), Gate(3, "X", 1, (0, 1, 2)), Gate(2, "Y", 2), Gate(3, "Y", 3, (2,)))
    circuit = Circuit(4, gates, (0.3, 1.4, 2.0, 0.2))
    states = dense.states(circuit)
    narrow = AdjointPlan(circuit, 2).gradient(circuit.parameters, states, weigh)
    wide = AdjointPlan(circuit, 4).gradient(circuit.parameters, states, weigh)
    assert np.abs(narrow[1] - wide[1]).max() < 1e-14


def test_no_samples_have_no_gradient() -> None:
    circuit, _ = ready("local-x", 2, samples=1)
    outcomes, gradient = AdjointPlan(circuit).gradient(circuit.parameters, np.empty((0, 4)), weigh)
    assert outcomes.shape == (0, 2)
    assert gradient.tolist() == [0.0, 0.0]


def test_too_large_is_told_before_it_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    circuit, states = ready("local-x", 2, samples=1)
    monkeypatch.setattr(memory, "available", lambda: 10)
    with pytest.raises(CircuitTooLargeError, match="Gradients on 2 qubits"):
        AdjointPlan(circuit).gradient(circuit.parameters, states, weigh)


def test_pennylane_has_the_same_gradient() -> None:
    qml = pytest.importorskip("pennylane", reason="PennyLane is not installed")
    circuit, states = ready("local-z local-x cyclic-x local-y cyclic-z", 4, samples=3)
    plain = {"X": qml.RX, "Y": qml.RY, "Z": qml.RZ}
    controlled = {"X": qml.CRX, "Y": qml.CRY, "Z": qml.CRZ}
    wire = [3, 2, 1, 0]
    expected = np.zeros(len(circuit.parameters))
    for state in states:
        listed = [qml.StatePrep(state, wires=range(4))]
        for gate in circuit.gates:
            angle = circuit.parameters[gate.parameter]
            wires = [*(wire[control] for control in gate.controls), wire[gate.target]]
            kinds = controlled if gate.controls else plain
            listed.append(kinds[gate.axis](angle, wires=wires))
        tape = qml.tape.QuantumScript(listed, [qml.expval(qml.Z(0))])
        tape.trainable_params = list(range(1, len(listed)))
        tapes, combine = qml.gradients.param_shift(tape)
        device = qml.device("default.qubit")
        expected -= np.array(combine(device.execute(tapes))).ravel() / 2  # p is (1 - <Z>)/2
    weights = np.tile([0.0, 1.0], (3, 1))
    found = AdjointPlan(circuit).gradient(
        circuit.parameters, states, lambda _, where: weights[where]
    )[1]
    assert np.abs(found - expected).max() < 1e-12

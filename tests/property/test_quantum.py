"""Circuits, against full matrices: whatever the gates, angles, measured qubits and samples."""

from __future__ import annotations

import dataclasses

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from numpy.typing import NDArray

from scoring.quantum import document, simulate
from scoring.quantum.adjoint import AdjointPlan
from scoring.quantum.circuit import Circuit, Gate
from scoring.quantum.cone import fuse, light_cone
from scoring.quantum.encoding import amplitudes, encode
from scoring.quantum.gradients import Gradients, Method
from scoring.quantum.overlaps import hadamard_gradients
from tests.support import dense

TOLERANCE = 1e-12
SETTINGS = settings(max_examples=60, deadline=None)
ANY_CIRCUIT = dense.circuits()
REAL_CIRCUIT = dense.circuits(axes="Y")
RANDOM = np.random.default_rng(0)


def exact_gradient(
    circuit: Circuit, states: NDArray[np.float64], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """∂gate = -iP/2·gate where the controls are one, by full matrices."""
    result = np.zeros(len(circuit.parameters))
    matrices = [
        dense.matrix(gate, circuit.parameters[gate.parameter], circuit.qubits)
        for gate in circuit.gates
    ]
    whole = dense.unitary(circuit)
    for place, gate in enumerate(circuit.gates):
        on = dense.kron(
            [dense.ONE if q in gate.controls else np.eye(2) for q in range(circuit.qubits)]
        )
        pauli = dense.kron(
            [
                dense.PAULIS[gate.axis] if q == gate.target else np.eye(2)
                for q in range(circuit.qubits)
            ]
        )
        moved = np.eye(circuit.size, dtype=complex)
        for other, each in enumerate(matrices):
            moved = each @ moved
            if other == place:
                moved = -0.5j * pauli @ on @ moved
        after, change = states @ whole.T, states @ moved.T
        slopes = 2 * (after.conj() * change).real
        for outcome in range(weights.shape[1]):
            index = np.arange(circuit.size)
            bits = sum(((index >> q) & 1) << b for b, q in enumerate(circuit.measured))
            result[gate.parameter] += float(
                weights[:, outcome] @ slopes[:, bits == outcome].sum(axis=1)
            )
    return result


@SETTINGS
@given(ANY_CIRCUIT)
def test_the_simulator_does_what_full_matrices_do(circuit: Circuit) -> None:
    states = dense.states(circuit)
    found = simulate.measure(simulate.run(circuit, states.T), circuit.measured)
    assert np.abs(found - dense.outcomes(circuit, states)).max() < TOLERANCE


@SETTINGS
@given(REAL_CIRCUIT)
def test_rotations_about_y_stay_real(circuit: Circuit) -> None:
    states = dense.states(circuit)
    assert circuit.is_real
    result = simulate.run(circuit, states.T)
    assert result.dtype == np.float64
    found = simulate.measure(result, circuit.measured)
    assert np.abs(found - dense.outcomes(circuit, states)).max() < TOLERANCE


@SETTINGS
@given(ANY_CIRCUIT)
def test_gates_outside_the_light_cone_do_not_matter(circuit: Circuit) -> None:
    kept = light_cone(circuit.gates, circuit.measured)
    inside = [circuit.gates[place] for place in kept]
    gates = tuple(gate._replace(parameter=place) for place, gate in enumerate(inside))
    angles = tuple(circuit.parameters[gate.parameter] for gate in inside)
    cut = dataclasses.replace(circuit, gates=gates, parameters=angles)
    states = dense.states(circuit)
    difference = dense.outcomes(cut, states) - dense.outcomes(circuit, states)
    assert np.abs(difference).max() < TOLERANCE


@SETTINGS
@given(ANY_CIRCUIT, st.integers(1, 5))
def test_blocks_hold_every_gate_once_and_keep_the_order_that_counts(
    circuit: Circuit, width: int
) -> None:
    blocks = fuse(circuit.gates, range(len(circuit.gates)), width)
    order = [place for block in blocks for place in block.gates]
    assert sorted(order) == list(range(len(circuit.gates)))
    for block in blocks:
        most = max(len(circuit.gates[place].qubits) for place in block.gates)
        assert len(block.qubits) <= max(width, most)
    gates = tuple(circuit.gates[place] for place in order)
    moved = dataclasses.replace(circuit, gates=gates)
    unlike = np.abs(dense.unitary(moved) - dense.unitary(circuit)).max()
    # The axis I turns the phase of the whole state, which blocks may leave out but never reorder.
    assert unlike < TOLERANCE


@SETTINGS
@given(ANY_CIRCUIT, st.integers(1, 5), st.integers(0, 9))
def test_adjoint_gradients_are_those_of_full_matrices(
    circuit: Circuit, width: int, seed: int
) -> None:
    states = dense.states(circuit)
    weights = np.random.default_rng(seed).normal(size=(len(states), 1 << len(circuit.measured)))
    plan = AdjointPlan(circuit, width)
    found, gradient = plan.gradient(circuit.parameters, states, lambda _, where: weights[where])
    assert np.abs(found - dense.outcomes(circuit, states)).max(initial=0) < TOLERANCE
    assert np.abs(plan.outcomes(circuit.parameters, states) - found).max(initial=0) < TOLERANCE
    unlike = gradient - exact_gradient(circuit, states, weights)
    assert np.abs(unlike).max(initial=0) < TOLERANCE * 10


@SETTINGS
@given(ANY_CIRCUIT)
def test_shifted_angles_give_the_same_gradient(circuit: Circuit) -> None:
    states = dense.states(circuit, samples=3)
    weights = np.random.default_rng(1).normal(size=(3, 1 << len(circuit.measured)))
    _, gradient = Gradients(circuit, Method("shift")).gradient(
        circuit.parameters, states, lambda _, where: weights[where], RANDOM
    )
    unlike = gradient - exact_gradient(circuit, states, weights)
    assert np.abs(unlike).max(initial=0) < TOLERANCE * 10


@SETTINGS
@given(dense.circuits(most_qubits=4, axes="XYZ"))
def test_hadamard_tests_with_the_z_measure_twice_the_gradient(circuit: Circuit) -> None:
    single = dataclasses.replace(circuit, measured=circuit.measured[:1], classes=(0, 1), bias=0.0)
    states = dense.states(single, samples=3)
    weights = np.zeros((3, 2))
    weights[:, 1] = 1.0
    found = hadamard_gradients(single, states).sum(axis=0)
    unlike = found - 2 * exact_gradient(single, states, weights)
    assert np.abs(unlike).max(initial=0) < TOLERANCE * 10


@SETTINGS
@given(dense.circuits(most_qubits=4, axes="XYZ"))
def test_without_the_z_as_released_they_measure_nothing(circuit: Circuit) -> None:
    single = dataclasses.replace(circuit, measured=circuit.measured[:1], classes=(0, 1), bias=0.0)
    found = hadamard_gradients(single, dense.states(single, samples=3), released=True)
    assert np.abs(found).max(initial=0) < TOLERANCE


@SETTINGS
@given(ANY_CIRCUIT)
def test_a_circuit_survives_its_file(circuit: Circuit) -> None:
    read = document.loads(document.dumps(circuit))
    assert read == circuit
    assert document.digest(read) == document.digest(circuit)


@SETTINGS
@given(ANY_CIRCUIT)
def test_a_shift_by_4_pi_changes_nothing_and_by_2_pi_only_uncontrolled_gates_do_not(
    circuit: Circuit,
) -> None:
    states = dense.states(circuit)
    moved = circuit.at([angle + 4 * np.pi for angle in circuit.parameters])
    before, after = (
        simulate.measure(simulate.run(each, states.T), each.measured) for each in (circuit, moved)
    )
    assert np.abs(before - after).max() < 1e-11


def test_a_controlled_rotation_by_2_pi_is_no_identity() -> None:
    # On |+⟩⊗|0⟩ a full turn of the target flips the sign where the control is one.
    gates = (Gate(1, "X", 0, (0,)), Gate(0, "Y", 1))
    circuit = Circuit(2, gates, (2 * np.pi, np.pi / 2), measured=(0,))
    plus = [[1.0, 1.0, 0.0, 0.0]]
    still = simulate.probability_of_one(circuit.at([0.0, np.pi / 2]), plus)[0]
    turned = simulate.probability_of_one(circuit, plus)[0]
    assert abs(still - turned) > 0.99


ROWS = npst.arrays(
    np.float64,
    st.tuples(st.integers(1, 4), st.integers(1, 8)),
    elements=st.floats(allow_nan=False, allow_infinity=False),
)


@SETTINGS
@given(ROWS, st.floats(1e-3, 1e3))
def test_states_have_norm_one_whatever_the_rows_length(
    rows: NDArray[np.float64], factor: float
) -> None:
    states = amplitudes(rows, 3)
    assert np.isfinite(states).all()
    assert np.abs(np.linalg.norm(states, axis=1) - 1).max() < TOLERANCE
    inside = np.abs(rows).max(axis=1) < 1e300
    normal = inside & (np.abs(np.where(rows, rows, 1.0)).min(axis=1) > 1e-300)
    scaled = amplitudes(rows[normal] * factor, 3)
    assert np.abs(scaled - states[normal]).max(initial=0) < 1e-12


@SETTINGS
@given(ANY_CIRCUIT, st.integers(0, 5))
def test_labels_are_the_larger_probability_and_strictly_over_one_half(
    circuit: Circuit, seed: int
) -> None:
    rows = np.random.default_rng(seed).normal(size=(6, circuit.size))
    shares = simulate.class_probabilities(circuit, rows)
    assert shares.shape == (6, len(circuit.classes))
    assert (shares >= 0).all()
    assert np.abs(shares.sum(axis=1) - 1).max() < TOLERANCE
    labels = simulate.labels(circuit, rows)
    assert (labels == shares.argmax(axis=1)).all()
    if circuit.is_binary:
        ones = simulate.probability_of_one(circuit, rows)
        assert (labels == (ones + circuit.bias > 0.5)).all()


@SETTINGS
@given(ANY_CIRCUIT)
def test_portions_answer_as_the_whole(circuit: Circuit) -> None:
    rows = np.random.default_rng(0).normal(size=(7, circuit.size))
    whole = simulate.outcome_probabilities(circuit, rows)
    single = np.concatenate([simulate.outcome_probabilities(circuit, row[None]) for row in rows])
    assert np.abs(whole - single).max() < TOLERANCE
    assert encode(circuit, rows).shape == (7, circuit.size)

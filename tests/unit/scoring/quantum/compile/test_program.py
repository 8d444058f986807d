"""Circuits as few small matrices."""

from __future__ import annotations

import numpy as np
import pytest

from scoring.quantum import simulate
from scoring.quantum.circuit import Circuit, Gate
from scoring.quantum.compile.program import PART, Layout, program
from scoring.quantum.encoding import encode
from tests.support.circuits import random_circuit


def difference(circuit: Circuit, width: int) -> float:
    rows = np.random.default_rng(0).normal(size=(5, circuit.size))
    outcomes = range(2 ** len(circuit.measured))
    found = program(circuit, width, outcomes).sums(encode(circuit, rows))
    return float(np.abs(found - simulate.outcome_probabilities(circuit, rows)).max())


@pytest.mark.parametrize("qubits", [2, 5, 9, 12, 14])
def test_programs_answer_what_the_state_vector_does(qubits: int) -> None:
    assert difference(random_circuit(qubits, 3 * qubits, qubits), 4) < 1e-12


def test_a_gate_with_more_controls_than_a_block_is_wide() -> None:
    wide = (Gate(0, "X", 0, (1, 2, 3, 4, 5)), Gate(5, "I", 1, (0, 1, 2, 3)))
    around = tuple(Gate(qubit, "Y", 2, ()) for qubit in range(6))
    circuit = Circuit(6, around + wide + around, (1.1, 2.2, 0.7))
    steps = program(circuit, 2, (0, 1))
    assert max(len(stage.matrix) for stage in steps.stages) <= 8
    assert any(stage.outer for stage in steps.stages)
    assert difference(circuit, 2) < 1e-14


def test_a_circuit_of_rotations_about_y_stays_real() -> None:
    circuit = random_circuit(5, 30, 0, axes="Y", most_controls=1)
    assert not any(PART in stage.result for stage in program(circuit, 3, (1,)).stages)
    assert difference(circuit, 3) < 1e-13


def test_only_the_rows_of_wanted_outcomes_are_kept() -> None:
    circuit = random_circuit(4, 20, 0, measured=2, most_controls=1)
    rows = np.random.default_rng(0).normal(size=(5, 16))
    states = encode(circuit, rows)
    found = program(circuit, 3, (2, 0)).sums(states)
    wanted = simulate.outcome_probabilities(circuit, rows)[:, [2, 0]]
    assert np.abs(found - wanted).max() < 1e-13


def test_a_circuit_without_gates_has_one_stage_that_selects() -> None:
    circuit = Circuit(3, (), ())
    assert len(program(circuit, 3, (1,)).stages) == 1
    assert difference(circuit, 3) < 1e-15


def test_layouts_keep_neighbours_together() -> None:
    layout = Layout((4, 3, 2, 1, 0))
    sizes, order = layout.permutation(layout.moved((2, 1)))
    assert (sizes, order) == ((4, 4, 2), (1, 0, 2))
    assert layout.moved((2, 1)) == (2, 1, 4, 3, 0)
    assert layout.permutation(layout) == ((32,), (0,))

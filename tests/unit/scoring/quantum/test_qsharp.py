"""Q# programs, run by the current qdk."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from scoring.errors import UnsupportedModelError
from scoring.quantum import qsharp, simulate
from scoring.quantum.circuit import Circuit
from scoring.quantum.encoding import encode
from scoring.quantum.features import Encoding
from tests.support.circuits import random_circuit


@pytest.fixture(scope="module")
def kit() -> Any:
    return pytest.importorskip("qdk.qsharp", reason="qdk is not installed")


def final_state(kit: Any, circuit: Circuit, row: Any) -> Any:
    """The amplitudes after preparation and gates, as qdk simulates them."""
    kit.init()
    kit.eval(qsharp.dumps(circuit))
    numbers = "[" + ", ".join(map(repr, map(float, row))) + "]"
    answer = kit.eval(
        f"{{ use qs = Qubit[{circuit.qubits}]; PrepareRow({numbers}, qs); ApplyCircuit(qs);"
        " Std.Diagnostics.DumpMachine(); ResetAll(qs); }",
        save_events=True,
    )
    state = np.array(answer["events"][0].as_dense_state(), dtype=complex)
    # Its dumps have qubit 0 as the most significant bit.
    axes = range(circuit.qubits - 1, -1, -1)
    return state.reshape((2,) * circuit.qubits).transpose(*axes).reshape(-1, 1)


@pytest.mark.parametrize("seed", range(8))
def test_qdk_computes_the_same_probabilities(kit: Any, seed: int) -> None:
    qubits = 1 + seed % 4
    features = Encoding(2**qubits - seed % 2)
    circuit = random_circuit(qubits, 15, seed, measured=min(2, qubits), bias=0.0, encoding=features)
    row = np.random.default_rng(seed).normal(size=features.features)
    found = simulate.measure(final_state(kit, circuit, row), circuit.measured)
    wanted = simulate.outcome_probabilities(circuit, [row])
    assert np.abs(found - wanted).max() < 1e-12


@pytest.mark.parametrize("size", [1e-200, 1e200])
def test_rows_whose_squares_are_no_numbers_are_prepared_too(kit: Any, size: float) -> None:
    circuit = random_circuit(2, 8, 0, bias=0.0)
    row = size * np.array([1.0, -2.0, 0.5, 0.25])
    found = simulate.measure(final_state(kit, circuit, row), circuit.measured)
    assert np.abs(found - simulate.outcome_probabilities(circuit, [row])).max() < 1e-12


def test_a_row_of_zeros_is_the_first_state(kit: Any) -> None:
    circuit = random_circuit(2, 8, 0)
    state = final_state(kit, circuit, [0.0] * 4)
    start = encode(circuit, [[0.0] * 4])
    assert np.allclose(
        simulate.measure(state, circuit.measured),
        simulate.measure(simulate.run(circuit, start.T), circuit.measured),
    )


@pytest.mark.parametrize(
    ("classes", "measured"), [((0, 1), 1), (("no", 'a "quoted" one'), 1), ((5, 6, 7), 2)]
)
def test_programs_run_and_answer_a_label(kit: Any, classes: Any, measured: int) -> None:
    circuit = random_circuit(3, 12, 1, classes=classes, measured=measured, bias=0.0)
    rows = np.random.default_rng(5).normal(size=(100, 8))
    probabilities = simulate.class_probabilities(circuit, rows)
    ordered = np.sort(probabilities, axis=1)
    clearest = int((ordered[:, -1] - ordered[:, -2]).argmax())
    kit.init()
    kit.eval(qsharp.dumps(circuit, list(rows[clearest])))
    assert kit.eval("Main()") == classes[int(probabilities[clearest].argmax())]


def test_labels_that_cannot_be_written_are_refused() -> None:
    circuit = random_circuit(1, 2, 0, classes=("line\nbreak", "b"))
    with pytest.raises(UnsupportedModelError, match=r"label|Q#"):
        qsharp.dumps(circuit)


def test_numbers_have_points() -> None:
    circuit = random_circuit(1, 1, 0, axes="Y").at([1e-20])
    assert "Ry(1.0e-20, qs[0]);" in qsharp.dumps(circuit)

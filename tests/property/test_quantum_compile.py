"""Every form of a circuit answers what full matrices do, whatever the circuit."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from scoring.quantum import qasm, simulate
from scoring.quantum.circuit import Circuit
from scoring.quantum.compile.compiler import compile_circuit, near_threshold
from scoring.quantum.compile.folding import fold
from scoring.quantum.compile.program import program
from scoring.quantum.pure import PureClassifier
from tests.support import circuits, dense

TOLERANCE = 1e-12
SETTINGS = settings(max_examples=40, deadline=None)
SMALL = dense.circuits(most_qubits=4)


def exact(circuit: Circuit, states: NDArray[Any]) -> NDArray[np.float64]:
    return simulate.decide(circuit, dense.outcomes(circuit, states))


@SETTINGS
@given(dense.circuits(), st.integers(1, 5))
def test_programs_do_what_full_matrices_do(circuit: Circuit, width: int) -> None:
    states = dense.states(circuit)
    outcomes = range(2 ** len(circuit.measured))
    found = program(circuit, width, outcomes).sums(states)
    assert np.abs(found - dense.outcomes(circuit, states)).max() < TOLERANCE


@SETTINGS
@given(dense.circuits())
def test_folded_matrices_do_what_full_matrices_do(circuit: Circuit) -> None:
    states = dense.states(circuit)
    found = fold(circuit, range(2 ** len(circuit.measured)))
    assert np.abs(found.sums(states) - dense.outcomes(circuit, states)).max() < TOLERANCE
    assert len(found.matrix) <= circuit.size * 2 ** len(circuit.measured)


@SETTINGS
@given(dense.circuits(), st.sampled_from(["folded", "fused"]))
def test_onnx_does_what_full_matrices_do(circuit: Circuit, form: Any) -> None:
    states = dense.states(circuit)
    wanted = exact(circuit, states)
    labels, found = circuits.run_onnx(compile_circuit(circuit, form=form).onnx, states)
    assert np.abs(found - wanted).max() < TOLERANCE
    clear = ~near_threshold(wanted, TOLERANCE)
    assert np.array_equal(labels[clear], wanted.argmax(axis=1)[clear])


@SETTINGS
@given(SMALL)
def test_plain_python_does_what_full_matrices_do(circuit: Circuit) -> None:
    states = dense.states(circuit)
    found = PureClassifier(circuit).predict_proba(states.tolist())
    assert np.abs(np.array(found) - exact(circuit, states)).max() < TOLERANCE


@SETTINGS
@given(SMALL)
def test_openqasm_means_the_same(circuit: Circuit) -> None:
    states = dense.states(circuit)
    again = qasm.loads(qasm.dumps(circuit))
    assert np.abs(exact(again, states) - exact(circuit, states)).max() < TOLERANCE
    assert (again.classes, again.bias, again.measured) == (
        *(circuit.classes, circuit.bias, circuit.measured),
    )
    angles = np.array(again.parameters)
    assert ((angles >= 0) & (angles < 2 * np.pi)).all()


@SETTINGS
@given(dense.circuits(), st.floats(-300, 300))
def test_the_length_of_a_row_does_not_matter(circuit: Circuit, exponent: float) -> None:
    states = dense.states(circuit)
    content = compile_circuit(circuit).onnx
    scaled = states * 10.0**exponent
    assert np.abs(circuits.run_onnx(content, scaled)[1] - exact(circuit, states)).max() < TOLERANCE

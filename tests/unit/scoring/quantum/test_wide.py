"""Rows that leave the range of floats in the encoding: every form answers as exact numbers do."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from scoring.quantum import layers, simulate
from scoring.quantum.circuit import Circuit, parameters_needed
from scoring.quantum.compile.compiler import FloatName, compile_circuit
from scoring.quantum.encoding import encode
from scoring.quantum.features import (
    Constant,
    Encoding,
    Power,
    Product,
    Round,
    Scale,
    Step,
    qubits_for,
)
from scoring.quantum.pure import PureClassifier
from tests.support.circuits import EVERY_STEP, run_onnx

pytest.importorskip("onnx")

ENCODINGS = {
    "power": Encoding(3, (Power(2),)),
    "third power": Encoding(2, (Power(3),)),
    "product": Encoding(3, (Product(0.5),)),
    "moons": Encoding(2, (Constant((1.0,)), Product())),
    "scale": Encoding(2, (Scale((1.0, -1e308), (1e9, 3e9)),)),
    "scale to nothing": Encoding(2, (Scale((-1.7e308, 2.0), (0.0, 3e9)),)),
    "round": Encoding(2, (Round(0.125),)),
    "round four": Encoding(4, (Round(1e-3),)),
    "every": EVERY_STEP,
    "product, then power": Encoding(2, (Product(), Power(2))),
}
FACTORS = (1e300, 1e200, 1e-200, 1e-160, 1e-320, 1.0)


def exact(encoding: Encoding, row: list[float]) -> NDArray[np.float64]:
    """The state of a row, by fractions up to the norm."""
    values = [Fraction(value) for value in row]
    for step in encoding.steps:
        values = applied(step, values)
    largest = max(map(abs, values)) or Fraction(1)
    found = np.array([float(value / largest) for value in values])
    if not found.any():
        found[0] = 1
    norm: NDArray[np.float64] = found / np.linalg.norm(found)
    return norm


def applied(step: Step, row: list[Fraction]) -> list[Fraction]:
    match step:
        case Scale():
            triples = zip(row, step.offset, step.factor, strict=True)
            return [(x - Fraction(offset)) * Fraction(factor) for x, offset, factor in triples]
        case Constant():
            return [*row, *map(Fraction, step.values)]
        case Product():
            return [*row, math.prod(row, start=Fraction(step.scale))]
        case Power():
            factor = row + [Fraction(0)] * (2 ** qubits_for(len(row)) - len(row))
            result = factor
            for _ in range(step.times - 1):
                result = [one * other for one in result for other in factor]
            return result
        case Round():
            return rounded(row, Fraction(step.step))


def rounded(row: list[Fraction], step: Fraction) -> list[Fraction]:
    if len(row) == 4 and abs(row[0]) > 1e-4:
        a, b, c, d = row
        if abs(a * d - b * c) < 1e-12:
            return row
    return [round(value / step) * step for value in row]


def circuit_for(encoding: Encoding) -> Circuit:
    qubits = qubits_for(encoding.width())
    gates = layers.parse("local-y local-x" + " cyclic-z:1 local-y" * (qubits > 1), qubits)
    angles = np.random.default_rng(3).normal(size=parameters_needed(gates))
    return Circuit(qubits, tuple(gates), tuple(angles.tolist()), bias=0.05, encoding=encoding)


def rows_for(encoding: Encoding) -> NDArray[np.float64]:
    """Rows of every size, with zeros, one huge feature, one tiny feature, and ±the largest."""
    plain = np.random.default_rng(7).normal(size=(len(FACTORS), encoding.features))
    rows = plain * np.array(FACTORS)[:, None]
    more = np.repeat(plain[:1], 5, axis=0)
    more[0], more[1] = 0.0, -0.0
    more[2, 0], more[3, -1] = 1e300, -1e-320
    more[4] = 1.7e308 * (-1.0) ** np.arange(encoding.features)
    return np.concatenate([rows, more])


def wanted_of(circuit: Circuit, rows: NDArray[np.float64]) -> NDArray[np.float64]:
    states = [exact(circuit.encoding, row) for row in rows.tolist()]
    bare = Circuit(circuit.qubits, circuit.gates, circuit.parameters, bias=circuit.bias)
    filled = np.zeros((len(rows), circuit.size))
    filled[:, : circuit.encoding.width()] = states
    return simulate.class_probabilities(bare, filled)


@pytest.mark.parametrize("name", ENCODINGS)
def test_states_are_those_of_exact_numbers(name: str) -> None:
    encoding = ENCODINGS[name]
    circuit, rows = circuit_for(encoding), rows_for(encoding)
    states = encode(circuit, rows)
    for row, state in zip(rows.tolist(), states, strict=True):
        width = encoding.width()
        assert np.abs(state[:width] - exact(encoding, row)).max() < 1e-14, row
        assert not state[width:].any()


@pytest.mark.parametrize("name", ENCODINGS)
def test_every_form_answers_alike(name: str) -> None:
    circuit, rows = circuit_for(ENCODINGS[name]), rows_for(ENCODINGS[name])
    wanted = wanted_of(circuit, rows)
    found: dict[str, Any] = {
        "simulated": simulate.class_probabilities(circuit, rows),
        "plain": np.array(PureClassifier(circuit).predict_proba(rows.tolist())),
        "compiled": compile_circuit(circuit).class_probabilities(rows),
    }
    for form in ("folded", "fused"):
        content = compile_circuit(circuit, form=form).onnx
        found[form] = run_onnx(content, rows)[1]
    for form, shares in found.items():
        assert np.abs(shares - wanted).max() < 1e-12, form


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_products_of_many_features_beside_a_row_of_zeros(dtype: FloatName) -> None:
    """The zeros take the wide branch, and all others of their request with them."""
    circuit = circuit_for(Encoding(200, (Product(),)))
    rows = np.full((3, 200), 1.9)
    rows[1] = 0
    rows[2] = 1e30
    wanted = wanted_of(circuit, rows)
    content = compile_circuit(circuit, dtype=dtype).onnx
    found = run_onnx(content, rows.astype(dtype))[1]
    assert np.abs(found - wanted).max() < (1e-5 if dtype == "float32" else 1e-12)


def test_a_row_alone_is_answered_as_among_others() -> None:
    circuit, rows = circuit_for(ENCODINGS["moons"]), rows_for(ENCODINGS["moons"])
    content = compile_circuit(circuit).onnx
    together = run_onnx(content, rows)[1]
    alone = np.concatenate([run_onnx(content, row[None])[1] for row in rows])
    assert np.abs(alone - together).max() < 1e-12


def test_float32_takes_rows_that_leave_its_range() -> None:
    circuit = circuit_for(Encoding(2, (Power(2),)))
    rows = np.array([[1e30, 2e30], [1e-30, -3e-30], [1, 2]], dtype=np.float32)
    found = run_onnx(compile_circuit(circuit, dtype="float32").onnx, rows)[1]
    assert np.abs(found - wanted_of(circuit, rows.astype(np.float64))).max() < 1e-5

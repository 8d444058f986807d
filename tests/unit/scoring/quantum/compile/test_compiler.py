"""Compiled circuits against the state vector: numpy and onnxruntime, both forms."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from scoring.errors import InputError
from scoring.quantum import document, simulate
from scoring.quantum.circuit import Circuit, Gate, Model
from scoring.quantum.compile.compiler import compile_circuit, near_threshold
from scoring.quantum.features import Encoding
from tests.support.circuits import EVERY_STEP, against_rest, random_circuit, rows_for, run_onnx

onnx = pytest.importorskip("onnx")
FORMS = pytest.mark.parametrize("form", ["folded", "fused"])

MODELS: dict[str, Model] = {
    "one qubit": random_circuit(1, 4, 0),
    "three": random_circuit(3, 20, 1),
    "words": random_circuit(4, 20, 2, classes=("no", "ümläut")),
    "numbers": random_circuit(4, 20, 3, classes=(7, -1)),
    "several": random_circuit(5, 30, 4, measured=3),
    "fewer classes": random_circuit(5, 30, 5, measured=2, classes=("a", "b", "c")),
    "padded": random_circuit(6, 30, 6, encoding=Encoding(37)),
    "steps": random_circuit(4, 20, 7, encoding=EVERY_STEP),
    "wide gates": random_circuit(8, 30, 8),
    "against rest": against_rest(),
}


@FORMS
@pytest.mark.parametrize("name", MODELS)
def test_all_forms_answer_as_the_state_vector_does(name: str, form: Any) -> None:
    model = MODELS[name]
    rows = rows_for(model)
    wanted = simulate.class_probabilities(model, rows)
    compiled = compile_circuit(model, form=form)
    assert set(compiled.forms) == {form}
    assert np.abs(compiled.class_probabilities(rows) - wanted).max() < 1e-12
    onnx.checker.check_model(onnx.load_from_string(compiled.onnx), full_check=True)
    for part in (slice(None), slice(0, 1), slice(1, 2), slice(3, 5), slice(0, 0)):
        labels, found = run_onnx(compiled.onnx, rows[part])
        assert found.shape == wanted[part].shape
        assert np.abs(found - wanted[part]).max(initial=0) < 1e-12
        assert labels.tolist() == [model.classes[k] for k in wanted[part].argmax(axis=1)]


@FORMS
def test_float32_is_good_to_five_digits(form: Any) -> None:
    for name in ("three", "several", "steps", "against rest"):
        model = MODELS[name]
        rows = rows_for(model)
        rows = np.where(np.abs(rows) > 1e30, 1.0, rows).astype(np.float32)
        compiled = compile_circuit(model, form=form, dtype="float32")
        labels, found = run_onnx(compiled.onnx, rows)
        assert found.dtype == np.float32
        wanted = simulate.class_probabilities(model, rows.astype(np.float64))
        assert np.abs(found - wanted).max() < 1e-5, name
        clear = ~near_threshold(wanted, 1e-5)
        expected = np.array(model.classes)[wanted.argmax(axis=1)]
        assert labels[clear].tolist() == expected[clear].tolist()


@FORMS
@pytest.mark.parametrize("scale", [1e-30, 1e-20, 1e18, 1e30])
def test_float32_rows_of_any_size(form: Any, scale: float) -> None:
    model = MODELS["three"]
    rows = rows_for(model)[4:] * scale
    content = compile_circuit(model, form=form, dtype="float32").onnx
    found = run_onnx(content, rows.astype(np.float32))[1]
    assert np.abs(found - simulate.class_probabilities(model, rows)).max() < 1e-5


@pytest.mark.parametrize("qubits", [10, 12, 14])
def test_large_circuits_run_in_portions(qubits: int) -> None:
    circuit = random_circuit(qubits, 4 * qubits, qubits, axes="XYZ", most_controls=2)
    rows = rows_for(circuit, 70)
    content = compile_circuit(circuit, form="fused").onnx
    wanted = simulate.class_probabilities(circuit, rows)
    for count in (70, 1, 64):
        assert np.abs(run_onnx(content, rows[:count])[1] - wanted[:count]).max() < 1e-12


def test_the_same_circuit_gives_the_same_bytes() -> None:
    one, other = (compile_circuit(MODELS["steps"]).onnx for _ in range(2))
    assert one == other


def test_only_standard_operators_are_used() -> None:
    for model in MODELS.values():
        for form in ("folded", "fused"):
            graph = onnx.load_from_string(compile_circuit(model, form=form).onnx)
            assert [(entry.domain, entry.version) for entry in graph.opset_import] == [("", 18)]


def test_the_file_says_which_circuit_it_is() -> None:
    model = MODELS["words"]
    found = onnx.load_from_string(compile_circuit(model).onnx)
    notes = {entry.key: entry.value for entry in found.metadata_props}
    assert notes["fieldpost.circuit"] == document.digest(model)
    assert notes["fieldpost.form"] == "folded"
    assert document.loads(notes["fieldpost.circuit.json"].encode()) == model


def test_rows_near_the_threshold_are_found() -> None:
    circuit = Circuit(1, (Gate(0, "Y", 0),), (0.0,))
    rows = np.array([[1.0, 1.0], [1.0, 1.0 + 1e-6], [1.0, 0.0]])
    near = near_threshold(simulate.class_probabilities(circuit, rows), 1e-12)
    assert near.tolist() == [True, False, False]


def test_bad_rows_are_refused() -> None:
    compiled = compile_circuit(MODELS["three"])
    for rows in ([[1.0] * 7], [[float("nan")] * 8], "text"):
        with pytest.raises(InputError):
            compiled.class_probabilities(rows)

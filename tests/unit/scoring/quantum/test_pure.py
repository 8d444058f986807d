"""Circuits in plain Python."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scoring.errors import (
    CircuitTooLargeError,
    MissingValueError,
    ModelNotFoundError,
    UnsupportedModelError,
    WrongShapeError,
    WrongTypeError,
)
from scoring.quantum import document, simulate
from scoring.quantum.circuit import Model
from scoring.quantum.features import Encoding, Round
from scoring.quantum.pure import PureClassifier, load
from tests.support.circuits import EVERY_STEP, against_rest, random_circuit, rows_for

MODELS: dict[str, Model] = {
    "words": random_circuit(3, 20, 1, classes=("no", "yes")),
    "several": random_circuit(4, 20, 2, measured=2, classes=(3, 4, 5)),
    "padded": random_circuit(4, 20, 3, encoding=Encoding(11)),
    "steps": random_circuit(4, 20, 4, encoding=EVERY_STEP),
    "rounded pairs": random_circuit(2, 9, 5, encoding=Encoding(4, (Round(0.25),))),
    "against rest": against_rest(),
}


@pytest.mark.parametrize("name", MODELS)
def test_it_answers_as_the_state_vector_does(name: str) -> None:
    model = MODELS[name]
    rows = np.array(rows_for(model, 30))
    if name == "rounded pairs":
        rows = np.random.default_rng(0).normal(size=(30, 4))
        rows[::2, 3] = rows[::2, 1] * rows[::2, 2] / rows[::2, 0]
    pure = PureClassifier(model)
    wanted = simulate.class_probabilities(model, rows)
    assert np.abs(np.array(pure.predict_proba(rows.tolist())) - wanted).max() < 1e-12
    assert pure.predict(rows.tolist()) == [model.classes[k] for k in wanted.argmax(axis=1)]


def test_it_reads_circuits_and_compiled_circuits(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    from scoring.quantum.compile.compiler import compile_circuit

    model = MODELS["words"]
    document.save(model, tmp_path / "a.circuit.json")
    (tmp_path / "a.onnx").write_bytes(compile_circuit(model).onnx)
    rows = rows_for(model).tolist()
    one, other = (
        load(tmp_path / name).predict_proba(rows) for name in ("a.circuit.json", "a.onnx")
    )
    assert one == other


def test_no_numpy_is_imported(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    from scoring.quantum.compile.compiler import compile_circuit

    path = tmp_path / "a.onnx"
    path.write_bytes(compile_circuit(MODELS["words"]).onnx)
    code = (
        "import sys\nfrom scoring.quantum.pure import load\n"
        f"load({str(path)!r}).predict([[1.0] * 8])\n"
        "print(*{'numpy', 'onnxruntime', 'onnx', 'httpx', 'scipy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not done.stdout.strip()


@pytest.mark.parametrize(
    ("row", "error", "where"),
    [
        ([1.0] * 7, WrongShapeError, "[1]"),
        ([float("nan")] + [1.0] * 7, MissingValueError, "[1][0]"),
        ([1.0] * 7 + [float("inf")], MissingValueError, "[1][7]"),
        ([10**400] + [1.0] * 7, MissingValueError, "[1][0]"),
        (["1"] + [1.0] * 7, WrongTypeError, "[1][0]"),
        ([True] + [1.0] * 7, WrongTypeError, "[1][0]"),
    ],
)
def test_bad_rows_are_refused_with_their_place(row: Any, error: Any, where: str) -> None:
    with pytest.raises(error) as caught:
        PureClassifier(MODELS["words"]).predict([[1.0] * 8, row])
    assert caught.value.where == where


def test_large_circuits_are_refused() -> None:
    with pytest.raises(CircuitTooLargeError, match="up to 6 qubits"):
        PureClassifier(random_circuit(7, 3, 0))


def test_files_without_a_circuit_are_refused(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Neg", ["x"], ["y"])],
        "g",
        [onnx.helper.make_tensor_value_info("x", 1, [1])],
        [onnx.helper.make_tensor_value_info("y", 1, [1])],
    )
    path = tmp_path / "a.onnx"
    path.write_bytes(onnx.helper.make_model(graph).SerializeToString())
    with pytest.raises(UnsupportedModelError, match="holds no circuit"):
        load(path)
    path.write_bytes(b"\x0a\xff")
    with pytest.raises(UnsupportedModelError):
        load(path)
    with pytest.raises(ModelNotFoundError):
        load(tmp_path / "absent")

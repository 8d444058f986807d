"""Quantum circuits among the formats: told from bytes, loaded, prepared, refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scoring.compilation import circuits as compilation
from scoring.errors import (
    CircuitError,
    CircuitTooLargeError,
    CorruptModelError,
    MissingValueError,
    UnknownFormatError,
    UnsupportedModelError,
)
from scoring.formats.base import Trust
from scoring.formats.detect import detect
from scoring.formats.load import load_original
from scoring.prepare import COMPILED_PATH, prepare
from scoring.quantum import document, memory, simulate
from scoring.quantum.circuit import Circuit, Gate
from scoring.quantum.compile.compiler import compile_circuit
from scoring.runtimes.circuit import CircuitPredictor
from tests.support.circuits import against_rest, random_circuit, rows_for, run_onnx

CIRCUIT = random_circuit(3, 20, 1, classes=("no", "yes"))


def saved(folder: Path, model: Any = CIRCUIT, name: str = "a.circuit.json") -> Path:
    path = folder / name
    document.save(model, path)
    return path


@pytest.mark.parametrize("name", ["a.circuit.json", "model", "a.json", "a.onnx"])
def test_a_circuit_is_told_by_its_content(tmp_path: Path, name: str) -> None:
    found = detect(saved(tmp_path, name=name))
    assert (found.format, found.runtime) == ("circuit", "circuit")
    assert found.made_with == {"fieldpost.circuit": "1"}
    assert not found.runs_code


def test_the_mark_may_stand_anywhere(tmp_path: Path) -> None:
    content = document.to_document(CIRCUIT)
    content["format"] = content.pop("format")
    path = tmp_path / "a.json"
    path.write_text("\ufeff" + json.dumps(content))
    assert detect(path).format == "circuit"
    assert load_original(detect(path), Trust()).model == CIRCUIT


def test_other_json_is_none(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"format": "fieldpost.circuits"}')
    with pytest.raises(UnknownFormatError, match="no known model format"):
        detect(path)


def test_a_circuit_that_is_cut_off(tmp_path: Path) -> None:
    path = saved(tmp_path)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(CorruptModelError, match="cut off"):
        detect(path)


@pytest.mark.parametrize(
    ("change", "error", "where"),
    [
        ({"version": 2}, UnsupportedModelError, "version"),
        ({"bias": 0.123}, CorruptModelError, "digest"),
        ({"qubits": 2}, CircuitError, "gates"),
        (
            {"gates": [{"target": 0, "axis": "X", "parameter": 0, "controls": [0]}]},
            CircuitError,
            "",
        ),
        ({"parameters": [1.0]}, CircuitError, "parameters"),
        ({"features": 9}, CircuitError, "features"),
    ],
)
def test_broken_circuits_name_the_place(
    tmp_path: Path, change: dict[str, Any], error: Any, where: str
) -> None:
    path = tmp_path / "a.circuit.json"
    path.write_text(json.dumps(document.to_document(CIRCUIT) | change))
    out = tmp_path / "out"
    with pytest.raises(error) as caught:
        prepare(path, out, trust=Trust())
    assert where in caught.value.where
    assert not out.exists()


def test_preparing_writes_the_compiled_form(tmp_path: Path) -> None:
    rows = rows_for(CIRCUIT)
    found = prepare(saved(tmp_path), tmp_path, trust=Trust(), sample=rows)
    assert (found.runtime, found.serves, found.format) == ("onnx", "compiled", "circuit")
    assert found.compilation is not None
    assert found.compilation.rows_compared == len(rows) + 1024 + 1
    assert found.compilation.max_difference < 1e-12
    assert "Folded into" in found.compilation.reason
    assert found.schema.classes == ("no", "yes")
    assert found.schema.example is not None
    labels, probabilities = run_onnx((tmp_path / COMPILED_PATH).read_bytes(), rows)
    wanted = simulate.class_probabilities(CIRCUIT, rows)
    assert np.abs(probabilities - wanted).max() < 1e-12
    assert labels.tolist() == [("no", "yes")[k] for k in wanted.argmax(axis=1)]


def test_rows_on_the_threshold_are_told_and_do_not_count_as_wrong(tmp_path: Path) -> None:
    gates = (Gate(0, "Y", 0), Gate(0, "Z", 1))
    always_half = Circuit(2, gates, (np.pi / 2, 0.3), measured=(1,), bias=0.0)
    rows = np.tile([1.0, 1.0, 1.0, 1.0], (7, 1))
    found = prepare(saved(tmp_path, always_half), tmp_path, trust=Trust(), sample=rows)
    assert found.compilation is not None
    assert found.serves == "compiled"
    assert "7 of them are so near the threshold" in found.compilation.reason


def test_without_onnx_the_state_vector_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    for name in ("scoring.quantum.onnx_graph", "scoring.quantum.onnx_export"):
        monkeypatch.delitem(__import__("sys").modules, name, raising=False)
    found = prepare(saved(tmp_path), tmp_path, trust=Trust())
    assert (found.runtime, found.serves) == ("circuit", "original")
    assert found.compilation is not None
    assert "needs the package onnx" in found.compilation.reason
    assert [text.partition("==")[0] for text in found.requirements] == ["numpy"]


def test_a_compiled_form_that_differs_does_not_serve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = load_original(detect(saved(tmp_path)), Trust())
    other = CIRCUIT.at([angle + 1e-3 for angle in CIRCUIT.parameters])
    monkeypatch.setattr(compilation, "compile_circuit", lambda _model: compile_circuit(other))
    outcome, compiled = compilation.compile_model(loaded)
    assert compiled is None
    assert not outcome.served
    assert outcome.max_difference > 1e-6


def test_states_that_do_not_fit_are_refused_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(tmp_path, random_circuit(20, 3, 0, most_controls=1))
    monkeypatch.setattr(memory, "available", lambda: 1 << 20)
    with pytest.raises(CircuitTooLargeError, match="The states of 20 qubits need"):
        prepare(path, tmp_path, trust=Trust())


def test_the_native_predictor_answers_and_refuses(tmp_path: Path) -> None:
    model = against_rest()
    loaded = load_original(detect(saved(tmp_path, model)), Trust())
    assert isinstance(loaded.predictor, CircuitPredictor)
    rows = rows_for(model)
    answer = loaded.predictor.predict({"X": rows})
    wanted = simulate.class_probabilities(model, rows)
    assert np.array_equal(answer["probabilities"], wanted)
    assert answer["predictions"].tolist() == simulate.labels(model, rows).tolist()
    rows[0, 0] = np.inf
    with pytest.raises(MissingValueError):
        loaded.predictor.predict({"X": rows})


@pytest.mark.parametrize("name", ["a.circuit.json", "a.onnx"])
def test_the_schema_names_the_circuit_also_of_its_compiled_file(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if path.suffix == ".onnx":
        path.write_bytes(compile_circuit(CIRCUIT).onnx)
    else:
        document.save(CIRCUIT, path)
    found = prepare(path, tmp_path / "out", trust=Trust())
    assert found.schema.notes == {"fieldpost.circuit": document.digest(CIRCUIT)}

"""Circuits as files: what is written is read, what is not a circuit says why."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from scoring.errors import (
    CircuitError,
    CorruptModelError,
    ModelNotFoundError,
    UnsupportedModelError,
    WorkspaceError,
)
from scoring.quantum import document
from scoring.quantum.circuit import Circuit, Gate, OneVersusRest
from scoring.quantum.features import Constant, Encoding, Power, Product, Round, Scale

CIRCUIT = Circuit(
    4,
    (Gate(0, "X", 0), Gate(3, "Z", 1, (0, 2))),
    (0.25, 13.0),
    bias=-0.125,
    classes=("no", "yes"),
    encoding=Encoding(
        1, (Scale((1.0,), (2.0,)), Constant((1.0,)), Product(0.5), Power(2), Round(0.001))
    ),
    record={"misses": 2},
)


def changed(**keys: Any) -> dict[str, Any]:
    whole = document.to_document(CIRCUIT)
    whole.pop("digest")
    return whole | keys


def test_a_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "half.circuit.json"
    document.save(CIRCUIT, path)
    read = document.load(path)
    assert read == CIRCUIT
    assert read.record == {"misses": 2}
    assert path.read_text().count('"axis"') == 2
    assert len([line for line in path.read_text().splitlines() if '"axis"' in line]) == 2


def test_several_circuits_in_one_file() -> None:
    model = OneVersusRest((CIRCUIT, CIRCUIT, CIRCUIT), (3, 4, 5), {"note": "x"})
    read = document.loads(document.dumps(model))
    assert read == model
    assert read.record == {"note": "x"}


def test_the_digest_is_of_what_is_computed() -> None:
    same = document.digest(CIRCUIT)
    assert same.startswith("sha256:")
    assert len(same) == 71
    noted = Circuit(**(vars(CIRCUIT) | {"record": {"other": 1}}))
    assert document.digest(noted) == same
    assert document.digest(CIRCUIT.at([0.25, 13.0 + 1e-15 * 16])) != same
    assert document.digest(CIRCUIT.at(CIRCUIT.parameters, 0.0)) != same
    whole = Circuit(2, (Gate(0, "X", 0),), (1,), bias=0)
    floats = Circuit(2, (Gate(0, "X", 0),), (1.0,), bias=-0.0)
    assert document.digest(whole) == document.digest(floats)


def test_the_digest_of_a_known_circuit_stays() -> None:
    circuit = Circuit(2, (Gate(0, "X", 0), Gate(1, "Y", 1, (0,))), (0.5, 1.5), bias=0.25)
    assert document.digest(circuit) == (
        "sha256:74a30e32f6462d6c34a8ed102da3ad9530772851e0003e02be3f7c92ec6761b9"
    )


def test_a_changed_file_is_told_from_its_digest() -> None:
    whole = document.to_document(CIRCUIT)
    whole["bias"] = 0.25
    with pytest.raises(CorruptModelError, match="not the one that its digest names"):
        document.from_document(whole)
    del whole["digest"]
    assert document.from_document(whole) == CIRCUIT.at(CIRCUIT.parameters, 0.25)


@pytest.mark.parametrize(
    ("keys", "kind", "message", "where"),
    [
        ({"format": "other"}, CorruptModelError, "no circuit of Fieldpost", ""),
        ({"version": 2}, UnsupportedModelError, "version 2; this Fieldpost reads 1", "version"),
        ({"version": None}, CorruptModelError, "does not say its version", "version"),
        ({"version": True}, UnsupportedModelError, "version True", "version"),
        ({"order": "big-endian"}, CircuitError, "qubit order 'big-endian'", "order"),
        ({"shots": 5}, CircuitError, "'shots' is not known", "shots"),
        ({"gates": {}}, CircuitError, "A list is needed here, not an object", "gates"),
        ({"gates": [5]}, CircuitError, "An object is needed here, not a number", "gates[0]"),
        ({"gates": [{"axis": "X", "parameter": 0}]}, CircuitError, "of its target", "gates[0]"),
        (
            {"gates": [{"target": 0, "axis": "X", "parameter": 0, "angle": 1}]},
            CircuitError,
            "'angle' is not known",
            "gates[0].angle",
        ),
        (
            {"gates": [{"target": 9, "axis": "X", "parameter": 0}], "parameters": [1.0]},
            CircuitError,
            "Qubit 9",
            "gates[0].target",
        ),
        ({"parameters": [1.0]}, CircuitError, "Parameters are missing", "parameters"),
        ({"encoding": [{"step": "fold"}]}, CircuitError, "'fold' is not known", "encoding[0]"),
        ({"encoding": [{"step": "power"}]}, CircuitError, "of its times", "encoding[0]"),
        (
            {"encoding": [{"step": "power", "times": 0}]},
            CircuitError,
            "0 copies",
            "encoding[0]",
        ),
        ({"record": []}, CircuitError, "An object is needed", "record"),
    ],
)
def test_what_is_wrong_with_a_file(
    keys: dict[str, Any], kind: type[Exception], message: str, where: str
) -> None:
    with pytest.raises(kind) as caught:
        document.from_document(changed(**keys))
    assert message.replace("reads 1", "reads version 1") in str(caught.value)
    assert caught.value.where == where  # type: ignore[attr-defined]


def test_the_place_inside_several_circuits_is_told() -> None:
    whole = document.to_document(OneVersusRest((CIRCUIT, CIRCUIT), (0, 1)))
    del whole["digest"]
    whole["circuits"][1]["gates"][0]["target"] = 7
    with pytest.raises(CircuitError) as caught:
        document.from_document(whole)
    assert caught.value.where == "circuits[1].gates[0].target"
    whole["rule"] = "votes"
    with pytest.raises(CircuitError, match="rule 'votes'"):
        document.from_document(whole)


@pytest.mark.parametrize(
    "data",
    [b"", b"[1, 2", b"\xff", b'{"a": NaN}', b'{"a": 1, "a": 2}', b"[" * 200_000],
)
def test_what_is_no_json(data: bytes) -> None:
    with pytest.raises(CorruptModelError, match="no JSON"):
        document.loads(data)


def test_a_huge_file_is_refused_before_it_is_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(document, "MAX_BYTES", 100)
    with pytest.raises(CorruptModelError, match="over"):
        document.loads(b" " * 101)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="No such file"):
        document.load(tmp_path / "none.circuit.json")


def test_a_folder_that_is_not_there_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(WorkspaceError):
        document.save(CIRCUIT, tmp_path / "none" / "a.circuit.json")
    assert os.listdir(tmp_path) == []  # noqa: PTH208


def test_a_record_that_json_does_not_know_is_refused(tmp_path: Path) -> None:
    odd = Circuit(1, (), (), record={"when": object()})
    with pytest.raises(CircuitError, match="record is no JSON"):
        document.save(odd, tmp_path / "a.circuit.json")
    assert not list(tmp_path.iterdir())


def test_the_bytes_are_json_for_everyone() -> None:
    parsed = json.loads(document.dumps(CIRCUIT))
    assert parsed["format"] == "fieldpost.circuit"
    assert parsed["version"] == 1
    assert parsed["order"] == "little-endian"
    assert parsed["gates"][1] == {"target": 3, "axis": "Z", "parameter": 1, "controls": [0, 2]}

"""Names of what is served from a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from scoring.bundle import read
from scoring.quantum import document
from serve.roots import ServeOptions, name_of, write_root
from tests.support.circuits import random_circuit


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("half-moons.circuit.json", "half-moons"),
        ("Half Moons.circuit.json", "half-moons"),
        ("iris.joblib", "iris"),
        ("iris.v2.onnx", "iris.v2"),
        ("circuit.json", "circuit"),
        (".circuit.json", "model"),
        ("__.onnx", "model"),
    ],
)
def test_a_file_is_served_under_its_name_without_ending(path: str, name: str) -> None:
    assert name_of(Path(path)) == name


def test_a_circuits_bundle_has_the_circuits_name(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    path = tmp_path / "half-moons.circuit.json"
    document.save(random_circuit(2, 4, 0), path)
    (tmp_path / "root").mkdir()
    write_root(tmp_path / "root", str(path), ServeOptions())
    assert read(tmp_path / "root").name == "half-moons"

"""Circuits' files with anything in them: an error of ours, or a circuit."""

from __future__ import annotations

import contextlib
import json
import random
from pathlib import Path
from typing import Any

import pytest

from scoring.errors import FieldpostError
from scoring.formats.base import Trust
from scoring.formats.detect import detect
from scoring.formats.load import load_original
from scoring.quantum import document, pure, qasm
from scoring.quantum.circuit import Circuit
from tests.support.circuits import EVERY_STEP, random_circuit

GATES = """OPENQASM 3.0; include "stdgates.inc"; qubit[2] q; bit c;
gate g(a) u, v { ctrl @ rx(a/2) u, v; inv @ s u; } g(pi) q[0], q[1]; c = measure q[1];"""
TEXTS = [
    qasm.dumps(random_circuit(3, 8, 0)),
    GATES,
]
PIECES = ["q[0]", "ctrl @", "inv @", "(", ")", "{", "}", ";", "pi", "**", "9" * 20, "-1", "\0", "é"]
VALUES: list[Any] = [None, -1, 0, 1.5, 1e400, "x", [], {}, True, [[]], 2**70, "sha256:0"]
ROUNDS = 400


def changed(text: str, rng: random.Random) -> str:
    for _ in range(rng.randint(1, 4)):
        place, end = sorted(rng.randrange(len(text) + 1) for _ in range(2))
        cut = text[:place] + rng.choice(PIECES) + text[min(end, place + rng.randint(0, 8)) :]
        text = cut or text
    return text


@pytest.mark.parametrize("text", TEXTS)
def test_openqasm_with_changes(text: str) -> None:
    rng = random.Random(0)
    for _ in range(ROUNDS):
        with contextlib.suppress(FieldpostError):
            assert isinstance(qasm.loads(changed(text, rng)), Circuit)


def test_documents_with_changes(tmp_path: Path) -> None:
    rng = random.Random(0)
    content = document.to_document(random_circuit(4, 6, 0, encoding=EVERY_STEP))
    path = tmp_path / "a.circuit.json"
    for _ in range(ROUNDS):
        found = json.loads(json.dumps(content))
        place = rng.choice([found, found["gates"][0], found["encoding"][0]])
        place[rng.choice(list(place))] = rng.choice(VALUES)
        found.pop("digest", None) if rng.random() < 0.9 else None
        path.write_text(json.dumps(found))
        with contextlib.suppress(FieldpostError):
            load_original(detect(path), Trust())


def test_compiled_files_with_changes(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    from scoring.quantum.compile.compiler import compile_circuit

    rng = random.Random(0)
    content = compile_circuit(random_circuit(2, 6, 0)).onnx
    path = tmp_path / "a.onnx"
    for _ in range(ROUNDS // 2):
        data = bytearray(content[: rng.randint(1, len(content))])
        data[rng.randrange(len(data))] = rng.randrange(256)
        path.write_bytes(data)
        with contextlib.suppress(FieldpostError):
            pure.load(path).predict([[1.0] * 4])

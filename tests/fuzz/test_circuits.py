"""Whatever stands in a circuit's file, reading it ends in a circuit or in an error of ours."""

from __future__ import annotations

import contextlib
import json
import os
from typing import Any

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from scoring.errors import FieldpostError
from scoring.quantum import document
from scoring.quantum.circuit import Circuit, Gate, OneVersusRest
from scoring.quantum.features import Constant, Encoding, Product, Scale

LONG = os.environ.get("FIELDPOST_TEST_LONG") == "1"
SETTINGS = settings(
    max_examples=20_000 if LONG else 250,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
CIRCUIT = Circuit(
    3,
    (Gate(0, "X", 0), Gate(1, "Y", 1, (0, 2)), Gate(2, "Z", 1)),
    (0.25, -7.5),
    bias=0.125,
    encoding=Encoding(2, (Scale((0.0, 1.0), (1.0, 2.0)), Product(), Constant((1.0,)))),
)
TREE = OneVersusRest((CIRCUIT, CIRCUIT, CIRCUIT), ("a", "b", "c"))
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(10**400), 10**400)
    | st.floats()
    | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner),
    max_leaves=6,
)


def read(data: bytes) -> None:
    with contextlib.suppress(FieldpostError):
        model = document.loads(data)
        assert document.loads(document.dumps(model)) == model


@SETTINGS
@given(st.binary(max_size=300))
@example(b"[" * 100_000)
@example(b'{"format": "fieldpost.circuit", "version": 1, "qubits": 1e999}')
@example(b"\xff\xfe{}")
def test_any_bytes(data: bytes) -> None:
    read(data)


@SETTINGS
@given(st.data(), st.sampled_from([CIRCUIT, TREE]))
def test_a_document_with_something_else_in_one_place(data: st.DataObject, model: Any) -> None:
    whole = document.to_document(model)
    whole.pop("digest")
    place: Any = whole
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = data.draw(st.sampled_from(keys))
        inner = place[key]
        if isinstance(inner, dict | list) and inner and data.draw(st.booleans()):
            place = inner
            continue
        break
    if data.draw(st.booleans()):
        place[key] = data.draw(JSON)
    else:
        del place[key]
    read(json.dumps(whole).encode())


@SETTINGS
@given(st.integers(0, 10_000), st.binary(min_size=1, max_size=3))
def test_a_file_that_was_damaged(at: int, put: bytes) -> None:
    data = document.dumps(CIRCUIT)
    at %= len(data)
    read(data[:at] + put + data[at + len(put) :])

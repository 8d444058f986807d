"""A table means the same in every form: CSV, MLflow's JSON, KServe's rows and columns."""

from __future__ import annotations

import csv
import io
import json
from types import SimpleNamespace
from typing import Any

import numpy as np
import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from scoring.errors import InputError
from scoring.payload import Codec, base64text, byrow, extra, table
from scoring.schema import ModelSchema, TensorSpec
from serve.server import mlflow, v1
from tests.support.small_models import Classifier

SCHEMA = ModelSchema(
    inputs=(
        TensorSpec("text", "string", (None, 1), missing=True),
        TensorSpec("whole, number", "int64", (None, 1)),
        TensorSpec('a "real"', "float64", (None, 1), missing=True),
        TensorSpec("known", "bool", (None, 1)),
    ),
    outputs=(TensorSpec("y", "float32", (None,)),),
    layout="table",
)
CODEC = Codec(SCHEMA)
NAMES = [spec.name for spec in SCHEMA.inputs]

characters = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
rows = st.lists(
    st.tuples(
        st.none() | st.text(characters, min_size=1, max_size=20),
        st.integers(-(2**63), 2**63 - 1),
        st.none() | st.floats(allow_nan=False, allow_infinity=False),
        st.booleans(),
    ),
    min_size=1,
    max_size=8,
)


def as_csv(columns: list[str], data: list[list[Any]]) -> bytes:
    stream = io.StringIO(newline="")
    writer = csv.writer(stream)
    writer.writerow(columns)
    writer.writerows([["" if cell is None else cell for cell in row] for row in data])
    return stream.getvalue().encode()


def same(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    assert found.keys() == wanted.keys()
    for name, array in wanted.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


@given(rows, st.permutations(range(4)), st.booleans())
@settings(deadline=None)
def test_every_form_of_a_table_is_the_same(
    data: list[tuple[Any, ...]], order: list[int], label: bool
) -> None:
    wanted = CODEC.decode(orjson.dumps({"data": data})).inputs
    columns = [NAMES[number] for number in order] + ["label"] * label
    moved = [[row[number] for number in order] + ["?"] * label for row in data]
    document = table.parse(as_csv(columns, moved), SCHEMA)
    document.value = extra.without_extra(document.value, SCHEMA)
    same(CODEC.decode_document(document).inputs, wanted)
    split = extra.without_extra({"columns": columns, "data": moved}, SCHEMA)
    records = extra.without_extra([dict(zip(columns, row, strict=True)) for row in moved], SCHEMA)
    for body in (split, {"instances": records}):
        same(CODEC.decode(orjson.dumps(body)).inputs, wanted)
    by_name = {name: [row[number] for row in moved] for number, name in enumerate(columns)}
    body = {"inputs": extra.without_extra(by_name, SCHEMA)}
    same(CODEC.decode(orjson.dumps(body)).inputs, wanted)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=20,
    )
)
def test_payloads_without_base64_are_left_as_they_are(value: Any) -> None:
    assert repr(base64text.decoded(value, "instances")) == repr(value)


@given(st.integers(1, 6), st.integers(1, 3))
def test_answers_by_row_and_by_column_hold_the_same(count: int, width: int) -> None:
    schema = ModelSchema(
        inputs=SCHEMA.inputs,
        outputs=(TensorSpec("a", "float32", (None,)), TensorSpec("b", "float32", (None, width))),
    )
    outputs = {
        "a": np.arange(count, dtype=np.float32),
        "b": np.arange(count * width, dtype=np.float32).reshape(count, width),
    }
    by_row = byrow.by_row(outputs, schema)
    assert len(by_row) == count
    for name, array in byrow.by_column(outputs, schema).items():
        np.testing.assert_array_equal(np.stack([row[name] for row in by_row]), array)


MATRIX = Classifier.schema
MODEL: Any = SimpleNamespace(schema=MATRIX, codec=Codec(MATRIX), name="matrix")
numbers = st.integers(-(10**40), 10**40) | st.floats() | st.none() | st.booleans() | st.just("1")
matrices = st.lists(st.lists(numbers, max_size=3) | numbers, max_size=4)


@given(
    st.sampled_from([v1.decode, mlflow.decode]),
    st.sampled_from(["instances", "inputs"]),
    st.lists(st.lists(st.floats(-1e30, 1e30), min_size=2, max_size=2), max_size=4) | matrices,
    st.booleans(),
    st.sampled_from(["", ',"data":[[1,2]]', ',"params":{}', ',"inputs":[[1,2]]']),
)
def test_the_short_way_decodes_as_the_long_one(
    decode: Any, key: str, rows: Any, compact: bool, more: str
) -> None:
    separators = (",", ":") if compact else (", ", ": ")
    text = json.dumps({key: rows}, separators=separators)
    body = f"{text[:-1]}{more}}}".encode()
    results: list[Any] = []
    for variant in (body, b" " + body):  # a space in front: the long way
        try:
            inputs, by_column = decode(MODEL, variant)
        except InputError as error:
            results.append((type(error), error.message))
        else:
            results.append((inputs["x"].tolist(), by_column))
    assert repr(results[0]) == repr(results[1])

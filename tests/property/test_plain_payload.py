"""The codec without numpy against the codec: the same rows, the same answers, the same words."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scoring.errors import InputError
from scoring.payload import Codec
from scoring.payload.plain import PlainCodec
from scoring.schema import DType, ModelSchema, TensorSpec

WIDTH = 3
NAMES = ("a", "b c", "é")


def schema(dtype: DType = "float64", *, named: bool = False, missing: bool = False) -> ModelSchema:
    return ModelSchema(
        inputs=(TensorSpec("X", dtype, (None, WIDTH), missing=missing),),
        outputs=(
            TensorSpec("label", "int64", (None,)),
            TensorSpec("predictions", "float64", (None, 2)),
        ),
        features=NAMES if named else (),
    )


SCHEMAS = [
    schema(),
    schema(named=True),
    schema("float32"),
    schema("float32", named=True, missing=True),
    schema(missing=True),
]

numbers = (
    st.floats(width=64)
    | st.integers(-(2**70), 2**70)
    | st.sampled_from([1e39, -1e39, 3.4e38, 10**400])
)
values = (
    numbers
    | st.none()
    | st.booleans()
    | st.text(max_size=3)
    | st.lists(st.integers(0, 3), max_size=2)
    | st.dictionaries(st.sampled_from(NAMES), st.integers(0, 3), max_size=1)
)
good_rows = st.lists(st.lists(numbers, min_size=WIDTH, max_size=WIDTH), min_size=1, max_size=4)
rows = good_rows | st.lists(st.lists(numbers | values, max_size=WIDTH + 1) | values, max_size=3)
keys = st.sampled_from([*NAMES, "X", "0", "1", "2", "other"])
records = st.lists(st.dictionaries(keys, rows | numbers | values, max_size=4), max_size=3)
full_records = st.lists(st.fixed_dictionaries(dict.fromkeys(NAMES, numbers)), max_size=3)
# Names beyond 64 bits are whole numbers to one parser and fractions to the other.
labels = keys | st.none() | st.booleans() | st.integers(-9, 9) | st.floats() | st.just([1])
columns = st.permutations(NAMES) | st.lists(labels, max_size=4) | st.just(["0", "1", "2"])
split = st.fixed_dictionaries(
    {"columns": columns, "data": rows}, optional={"index": st.lists(st.integers(0, 9), max_size=3)}
)
by_column = st.fixed_dictionaries(
    dict.fromkeys(NAMES, st.lists(numbers | values | st.lists(numbers, max_size=2), max_size=3))
)
named = (
    st.fixed_dictionaries({"X": rows})
    | by_column
    | st.dictionaries(keys, rows | numbers, max_size=3)
)
payload = rows | records | full_records | split | named | values
documents = (
    rows
    | records
    | full_records
    | split
    | st.builds(
        lambda key, value: {key: value},
        st.sampled_from(
            [
                *("data", "instances", "inputs", "input_data"),
                *("dataframe_split", "dataframe_records", "id", "rows"),
            ]
        ),
        payload,
    )
    | st.dictionaries(st.sampled_from(["data", "inputs", "id", "params", "columns"]), payload)
    | values
)


@pytest.mark.parametrize("given_schema", SCHEMAS, ids=range(len(SCHEMAS)))
@settings(max_examples=300, deadline=None)
@given(document=documents)
def test_bodies_are_taken_and_refused_alike(given_schema: ModelSchema, document: Any) -> None:
    same(given_schema, json.dumps(document).encode())


@settings(max_examples=200, deadline=None)
@given(document=documents, place=st.integers(0, 200), byte=st.integers(0, 255))
def test_broken_bodies_are_refused_alike(document: Any, place: int, byte: int) -> None:
    body = bytearray(json.dumps(document, ensure_ascii=False).encode())
    if body:
        body[place % len(body)] = byte
    same(schema(named=True), bytes(body))


def same(given_schema: ModelSchema, body: bytes) -> None:
    wanted = attempt(lambda: Codec(given_schema).decode(body))
    found = attempt(lambda: PlainCodec(given_schema).decode(body))
    if isinstance(wanted, InputError):
        assert isinstance(found, InputError)
        assert found.to_dict() == wanted.to_dict()
        return
    assert not isinstance(found, InputError), found
    assert found.style == wanted.style
    array = wanted.inputs["X"]
    assert np.array_equal(np.array(found.rows, dtype=array.dtype), array, equal_nan=True)


def attempt(decode: Any) -> Any:
    try:
        return decode()
    except InputError as error:
        return error


@settings(max_examples=100, deadline=None)
@given(
    shares=st.lists(st.lists(st.floats(width=64), min_size=2, max_size=2), min_size=1, max_size=3)
)
@pytest.mark.parametrize("style", ["predictions", "outputs"])
def test_answers_are_written_alike(style: Any, shares: list[list[float]]) -> None:
    numbered = list(range(len(shares)))
    arrays = {"label": np.array(numbered), "predictions": np.array(shares)}
    wanted = json.loads(Codec(schema()).encode(arrays, style))
    plain: dict[str, list[Any]] = {"label": numbered, "predictions": shares}
    assert json.loads(PlainCodec(schema()).encode(plain, style)) == wanted

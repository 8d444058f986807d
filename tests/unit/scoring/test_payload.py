"""Bodies to arrays and answers to JSON, in every form that clients send, and every wrong one."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

from scoring.errors import (
    InputError,
    MalformedPayloadError,
    MissingValueError,
    PayloadTooDeepError,
    UnknownInputError,
    WrongShapeError,
    WrongTypeError,
)
from scoring.payload import Codec, Decoded
from scoring.schema import DType, ModelSchema, TensorSpec

OUT = (TensorSpec("y", "float32", (None,)),)
NAMES = ("a", "b c", "d")


def schema(
    dtype: DType = "float32",
    shape: tuple[int | None, ...] = (None, 3),
    *,
    missing: bool = False,
    features: tuple[str, ...] = NAMES,
) -> ModelSchema:
    return ModelSchema((TensorSpec("x", dtype, shape, missing),), OUT, features=features)


TABLE = ModelSchema(
    (
        TensorSpec("age", "float32", (None, 1), missing=True),
        TensorSpec("city", "string", (None, 1), missing=True),
        TensorSpec("rooms", "int64", (None, 1)),
        TensorSpec("new", "bool", (None, 1)),
    ),
    OUT,
    layout="table",
)
SEVERAL = ModelSchema(
    (TensorSpec("ids", "int64", (None, 2)), TensorSpec("scale", "float32", (None,))), OUT
)


def decode(body: object, of: ModelSchema | None = None) -> Decoded:
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Codec(of or schema()).decode(text)


def fails(body: object, of: ModelSchema | None = None) -> InputError:
    with pytest.raises(InputError) as caught:
        decode(body, of)
    assert caught.value.message.endswith(".")
    return caught.value


# One matrix

ROWS = [[1, 2.5, 3], [4, 5, 6]]
RECORDS = [{"a": 1, "b c": 2.5, "d": 3}, {"d": 6, "b c": 5, "a": 4}]
SPLIT = {"columns": ["d", "a", "b c"], "index": [0, 1], "data": [[3, 1, 2.5], [6, 4, 5]]}


@pytest.mark.parametrize(
    ("body", "style"),
    [
        ({"data": ROWS}, "predictions"),
        ({"instances": ROWS}, "predictions"),
        ({"instances": ROWS, "signature_name": "serving_default"}, "predictions"),
        ({"inputs": {"x": ROWS}}, "outputs"),
        ({"inputs": ROWS}, "outputs"),
        (ROWS, "predictions"),
        (RECORDS, "predictions"),
        ({"data": RECORDS}, "predictions"),
        ({"instances": RECORDS}, "predictions"),
        ({"dataframe_records": RECORDS}, "predictions"),
        (SPLIT, "predictions"),
        ({"columns": list(NAMES), "data": ROWS}, "predictions"),
        ({"columns": [0, 1, 2], "data": ROWS}, "predictions"),
        ({"dataframe_split": SPLIT}, "predictions"),
        ({"dataframe_split": SPLIT, "params": {"x": 1}}, "predictions"),
        ({"input_data": SPLIT}, "predictions"),
        ({"input_data": ROWS}, "predictions"),
        ({"input_data": RECORDS}, "predictions"),
        ({"input_data": {"x": ROWS}}, "predictions"),
        ({"inputs": {"d": [3, 6], "a": [1, 4], "b c": [[2.5], [5]]}}, "outputs"),
        ([{"x": ROWS[0]}, {"x": ROWS[1]}], "predictions"),
    ],
)
def test_a_matrix_comes_in_many_forms(body: object, style: str) -> None:
    decoded = decode(body)
    assert decoded.inputs["x"].tolist() == ROWS
    assert decoded.inputs["x"].dtype == np.float32
    assert decoded.inputs["x"].flags.c_contiguous
    assert decoded.style == style


def test_white_space_duplicate_keys_and_other_layouts_of_json_are_fine() -> None:
    assert decode(b' {"data": [[1,2,3]], "data" : [[4 , 5 , 6]] }\n').inputs["x"].tolist() == [
        [4, 5, 6]
    ]
    assert decode(b"\xef\xbb\xbf[[1,2,3]]").inputs["x"].tolist() == [[1, 2, 3]]
    assert Codec(schema()).decode(bytearray(b"[[1,2,3]]")).inputs["x"].tolist() == [[1, 2, 3]]


def test_columns_of_a_model_without_names_count_by_order() -> None:
    nameless = schema(features=())
    assert decode({"columns": ["u", "v", "w"], "data": ROWS}, nameless).inputs["x"].tolist() == ROWS


@pytest.mark.parametrize(
    ("body", "kind", "where", "words"),
    [
        ({"data": [[1, 2]]}, WrongShapeError, "data[0]", "2 values"),
        ({"data": [[1, 2, 3], [1, 2, 3, 4]]}, WrongShapeError, "data[1]", "4 values"),
        ({"data": [[1, 2, 3], [1, 2]]}, WrongShapeError, "data[1]", "2 values"),
        ({"data": [1, 2, 3]}, WrongShapeError, "data[0]", "a number"),
        ({"data": 5}, WrongTypeError, "data", "a number"),
        ({"data": "1,2,3"}, WrongTypeError, "data", "a string"),
        ({"data": None}, WrongTypeError, "data", "null"),
        ({"data": [[[1, 2, 3]]]}, WrongShapeError, "data[0]", "1 value"),
        ({"data": [[[1], [2], [3]]]}, WrongShapeError, "data[0][0]", "nested deeper"),
        ({"data": []}, WrongShapeError, "data", "empty"),
        ({"data": [[]]}, WrongShapeError, "data[0]", "empty"),
        ([], WrongShapeError, "the body", "empty"),
        ({"data": [[1, 2, "3"]]}, WrongTypeError, "data[0][2]", "'d'"),
        ({"data": [[1, "2", 3]]}, WrongTypeError, "data[0][1]", "'b c'"),
        ([[1, 2, 3], [1, True, 3]], WrongTypeError, "[1][1]", "a boolean"),
        ([[1, 2, {}]], WrongTypeError, "[0][2]", "an object"),
        ({"data": [[1, 2, 3], {"a": 1}]}, WrongTypeError, "data[1]", "an object"),
        ({"data": [[1, 2, 3], [4, None, 6]]}, MissingValueError, "data[1][1]", "null"),
        (b'{"data": [[1, NaN, 3]]}', MissingValueError, "data[0][1]", "NaN"),
        (b'{"data": [[1, -Infinity, 3]]}', MissingValueError, "data[0][1]", "infinite"),
        (b'{"data": [[1, 1e999, 3]]}', MissingValueError, "data[0][1]", "infinite"),
        ({"data": [[1, 1e300, 3]]}, WrongTypeError, "data[0][1]", "float32"),
        ({"inputs": {"y": ROWS}}, UnknownInputError, "inputs", "missing: 'x'; unknown: 'y'"),
        ({"inputs": {}}, UnknownInputError, "inputs", "'x'"),
        ({"inputs": {"x": ROWS, "z": 1}}, UnknownInputError, "inputs", "unknown: 'z'"),
        ({"inputs": {"x": [[1, 2, "3"]]}}, WrongTypeError, "inputs.x[0][2]", "a string"),
        ({"inputs": {"a": [1], "d": [1]}}, UnknownInputError, "inputs", "missing: 'b c'"),
        ({"inputs": {"a": [1], "b c": [1, 2], "d": [1]}}, WrongShapeError, "inputs['b c']", "2"),
        ([{"a": 1, "d": 3}], UnknownInputError, "[0]", "missing: 'b c'"),
        ([{"a": 1, "b c": 2, "d": 3, "e": 4}], UnknownInputError, "[0]", "unknown: 'e'"),
        ([RECORDS[0], [1, 2, 3]], WrongTypeError, "[1]", "a list"),
        ([{"a": 1, "b c": "2", "d": 3}], WrongTypeError, "[0]['b c']", "a string"),
        ([{"a": "1", "b c": 2, "d": 3}], WrongTypeError, "[0].a", "a string"),
        ({"columns": ["a", "d"], "data": [[1, 2]]}, UnknownInputError, "columns", "'b c'"),
        ({"columns": ["a", "a", "b c", "d"], "data": [[1, 1, 2, 3]]}, UnknownInputError,
         "columns", "twice: 'a'"),
        ({"columns": ["d", "a", "b c"], "data": [[3, "1", 2]]}, WrongTypeError, "data[0][1]",
         "'a'"),
        ({"columns": ["d", "a", "b c"], "data": [[3, 1]]}, WrongShapeError, "data[0]", "3 columns"),
        ({"columns": ["d", "a", "b c"], "data": [3]}, WrongTypeError, "data[0]", "not a row"),
        ({"columns": ["d", "a", "b c"], "data": []}, WrongShapeError, "data", "no rows"),
        ({"columns": "a", "data": ROWS}, WrongTypeError, "columns", "a string"),
        ({"columns": ["a", None, "d"], "data": ROWS}, WrongTypeError, "columns[1]", "null"),
        ({"columns": list(NAMES), "index": [1], "data": ROWS}, WrongShapeError, "index", "1"),
        ({"columns": list(NAMES), "data": ROWS, "more": 1}, UnknownInputError, "", "'more'"),
        ({"dataframe_split": ROWS}, WrongTypeError, "dataframe_split", "columns"),
        ({"dataframe_split": {"data": ROWS}}, WrongTypeError, "dataframe_split", "columns"),
        ({"input_data": {"columns": ["q"], "data": [[1]]}}, UnknownInputError,
         "input_data.columns", "'q'"),
        ({"data": ROWS, "inputs": {"x": ROWS}}, UnknownInputError, "inputs", "'inputs'"),
        ({"data": ROWS, "datas": 1}, UnknownInputError, "datas", "'datas'"),
        ({}, UnknownInputError, "", "empty object"),
        ({"x": ROWS}, UnknownInputError, "", "'x'"),
        (5, MalformedPayloadError, "", "a number"),
        ("text", MalformedPayloadError, "", "a string"),
        (None, MalformedPayloadError, "", "null"),
    ],
)  # fmt: skip
def test_a_wrong_matrix_is_told_what_and_where(
    body: object, kind: type[InputError], where: str, words: str
) -> None:
    error = fails(body)
    assert type(error) is kind, error.message
    assert error.where == where
    assert words in error.message


def test_records_need_names() -> None:
    assert "names" in fails([{"a": 1}], schema(features=())).message


# JSON itself


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "empty"),
        (b"  \n", "empty"),
        (b"{", "line 1, column 2"),
        (b'{"data": [[1, 2, 3]', "line 1"),
        (b'{"data": [[1, 2, 3]]} x', "Extra data"),
        (b"{'data': 1}", "column 2"),
        (b"data=1", "line 1"),
        (b'{"data": [[1, 2, 3],]}', "line 1"),
        (b'{"data": [[01, 2, 3]]}', "line 1"),
        (b'{"data": [[1, 2, 0x3]]}', "line 1"),
        (b'\xff\xfe[\x00"', "UTF-8"),
        (b'{"data": "\xe9"}', "UTF-8"),
        (b'{"data": ["\\ud800"]}', "surrogate"),
        (b'{"\\udc00": 1}', "surrogate"),
        (b'{"data": ["a\nb"]}', "control"),
        (b"[[" + b"9" * 5000 + b", NaN]]", "too long"),
    ],
)
def test_what_is_no_json_is_malformed(body: bytes, words: str) -> None:
    error = fails(body)
    assert type(error) is MalformedPayloadError
    assert words in error.message


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 100 + b"1" + b"]" * 100,
        b"[" * 1500 + b"1" + b"]" * 1500,
        b"[" * 100_000 + b"]" * 100_000,
        b"[" * 100_000,
        b'{"data":' * 500 + b"1" + b"}" * 500,
        b'{"data": [[1, 2, ' + b"[" * 80 + b"]" * 80 + b"]]}",
        b'{"data": [[1, 2, 3]], "more": ' + b'{"a":' * 70 + b"1" + b"}" * 70 + b"}",
        b"[NaN, " + b"[" * 100 + b"]" * 100 + b"]",
    ],
)
def test_what_is_too_deep_is_told_so(body: bytes) -> None:
    assert type(fails(body)) is PayloadTooDeepError


def test_the_depth_is_a_setting() -> None:
    with pytest.raises(PayloadTooDeepError, match="3 levels"):
        Codec(schema(), max_depth=3).decode(b'{"data": [[[1]]]}')
    assert Codec(schema(), max_depth=3).decode(b"[[1,2,3]]").inputs


# Types


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_whole_numbers_are_fine_for_floats(dtype: DType) -> None:
    array = decode({"data": [[1, -2, 3]]}, schema(dtype)).inputs["x"]
    assert array.dtype == dtype
    assert array.tolist() == [[1, -2, 3]]


@pytest.mark.parametrize(
    ("dtype", "value", "good"),
    [
        ("int8", 127, True), ("int8", 128, False), ("int8", -128, True), ("int8", -129, False),
        ("uint8", 255, True), ("uint8", 256, False), ("uint8", -1, False),
        ("int16", 2**15, False), ("int32", 2**31 - 1, True), ("int32", 2**31, False),
        ("int64", 2**63 - 1, True), ("int64", 2**63, False), ("int64", -(2**63), True),
        ("int64", -(2**63) - 1, False), ("int64", 10**30, False), ("int64", 2.0, True),
        ("int64", 2.5, False), ("int64", 1e18, True), ("int64", 1e19, False),
        ("uint64", 2**64 - 1, True), ("uint64", 2**64, False), ("uint64", 2**63, True),
        ("float16", 65504, True), ("float16", 70000, False), ("float16", 70000.5, False),
        ("float32", 3.4e38, True), ("float32", 3.5e38, False), ("float32", 2**64 - 1, True),
        ("float64", 1.7e308, True), ("float64", 10**30, True), ("float32", -1e39, False),
    ],
)  # fmt: skip
@pytest.mark.parametrize("beside", [1, 1.0])
def test_numbers_have_to_be_in_range(dtype: DType, value: float, good: bool, beside: float) -> None:
    body = {"data": [[beside, beside, value]]}
    if good:
        array = decode(body, schema(dtype)).inputs["x"]
        assert array[0, 2] == np.array(value).astype(dtype)
        assert array.dtype == dtype
    else:
        error = fails(body, schema(dtype))
        assert type(error) is WrongTypeError
        assert error.where == "data[0][2]"


def test_large_whole_numbers_keep_every_digit_beside_floats() -> None:
    body = {"data": [[9007199254740993, 1.0, -9007199254740993]]}
    array = decode(body, schema("int64")).inputs["x"]
    assert array.tolist() == [[9007199254740993, 1, -9007199254740993]]


@pytest.mark.parametrize("text", [b"null", b"NaN"])
def test_missing_values_become_nan_where_the_model_takes_them(text: bytes) -> None:
    array = decode(b'{"data": [[1, %b, 3]]}' % text, schema(missing=True)).inputs["x"]
    assert array[0, 0] == 1
    assert math.isnan(array[0, 1])


@pytest.mark.parametrize("text", [b"Infinity", b"-Infinity", b"1e999"])
def test_infinity_is_never_taken(text: bytes) -> None:
    error = fails(b'{"data": [[1, %b, 3]]}' % text, schema(missing=True))
    assert type(error) is MissingValueError


def test_missing_whole_numbers_are_never_taken() -> None:
    assert type(fails({"data": [[1, None, 3]]}, schema("int64", missing=True))) is MissingValueError


@pytest.mark.parametrize(
    ("dtype", "good", "bad"),
    [
        ("bool", [True, False, True], [True, 1, False]),
        ("bool", [False, False, False], [True, "true", False]),
        ("string", ["a", "", "\u2603\U0001f600"], ["a", 1, "b"]),
        ("string", ["true", "null", "1"], ["a", True, "b"]),
    ],
)
def test_booleans_and_strings_are_themselves(dtype: DType, good: list[Any], bad: list[Any]) -> None:
    of = schema(dtype)
    array = decode({"data": [good]}, of).inputs["x"]
    assert array.tolist() == [good]
    assert array.dtype == (np.bool_ if dtype == "bool" else object)
    assert fails({"data": [bad]}, of).where == "data[0][1]"
    assert type(fails({"data": [[None, *good[1:]]]}, of)) is MissingValueError


@pytest.mark.parametrize(
    ("shape", "value"),
    [
        ((None,), [1, 2, 3]),
        ((None, None), [[1], [2]]),
        ((2, 2), [[1, 2], [3, 4]]),
        ((None, 1, 2, 2), [[[[1, 2], [3, 4]]]] * 3),
        ((1, None, 2), [[[1, 2], [3, 4], [5, 6]]]),
        ((), 4),
    ],
)
def test_any_rank_is_taken(shape: tuple[int | None, ...], value: Any) -> None:
    of = schema(shape=shape, features=())
    assert decode({"inputs": {"x": value}}, of).inputs["x"].tolist() == value


@pytest.mark.parametrize(
    ("shape", "value", "where"),
    [
        ((None,), [[1]], "inputs.x[0]"),
        ((None,), 1, "inputs.x"),
        ((2, 2), [[1, 2]], "inputs.x"),
        ((None, 1, 2, 2), [[[[1, 2], [3]]]], "inputs.x[0][0][1]"),
        ((None, None), [[1, 2], [3]], "inputs.x[1]"),
        ((), [1], "inputs.x"),
    ],
)
def test_wrong_ranks_and_sizes_have_a_place(
    shape: tuple[int | None, ...], value: Any, where: str
) -> None:
    error = fails({"inputs": {"x": value}}, schema(shape=shape, features=()))
    assert (type(error), error.where) == (WrongShapeError, where)


# Tables

TABLE_ROWS: list[list[Any]] = [[30, "Ulm", 2, True], [None, None, 3.0, False]]
TABLE_RECORDS = [dict(zip(("age", "city", "rooms", "new"), row, strict=True)) for row in TABLE_ROWS]


@pytest.mark.parametrize(
    "body",
    [
        {"data": TABLE_ROWS},
        TABLE_ROWS,
        TABLE_RECORDS,
        {"data": TABLE_RECORDS},
        {"dataframe_records": TABLE_RECORDS},
        {
            "columns": ["new", "rooms", "city", "age"],
            "index": ["r", "s"],
            "data": [row[::-1] for row in TABLE_ROWS],
        },
        {"inputs": {name: [r[name] for r in TABLE_RECORDS] for name in TABLE_RECORDS[0]}},
        {"inputs": {name: [[r[name]] for r in TABLE_RECORDS] for name in TABLE_RECORDS[0]}},
    ],
)
def test_a_table_comes_in_many_forms(body: object) -> None:
    inputs = decode(body, TABLE).inputs
    assert list(inputs) == ["age", "city", "rooms", "new"]
    assert all(array.shape == (2, 1) for array in inputs.values())
    assert inputs["age"].dtype == np.float32
    assert inputs["age"][0, 0] == 30
    assert math.isnan(inputs["age"][1, 0])
    assert inputs["city"].tolist() == [["Ulm"], [None]]
    assert inputs["rooms"].dtype == np.int64
    assert inputs["rooms"].tolist() == [[2], [3]]
    assert inputs["new"].dtype == np.bool_
    assert inputs["new"].tolist() == [[True], [False]]


def test_a_nan_among_strings_is_missing() -> None:
    body = b'{"data": [[1, NaN, 1, true]]}'
    assert decode(body, TABLE).inputs["city"].tolist() == [[None]]


@pytest.mark.parametrize(
    ("body", "kind", "where", "words"),
    [
        ({"data": [[30, "Ulm", 2]]}, WrongShapeError, "data[0]", "4 columns"),
        ({"data": [[30, 5, 2, True]]}, WrongTypeError, "data[0][1]", "'city'"),
        ({"data": [TABLE_ROWS[0], ["x", "y", 2, True]]}, WrongTypeError, "data[1][0]", "'age'"),
        ({"data": [[30, "Ulm", None, True]]}, MissingValueError, "data[0][2]", "'rooms'"),
        ({"data": [[30, ["Ulm"], 2, True]]}, WrongShapeError, "data[0][1]", "a list"),
        ({"data": [[30, {"a": 1}, 2, True]]}, WrongTypeError, "data[0][1]", "an object"),
        ({"data": [30, "Ulm", 2, True]}, WrongTypeError, "data[0]", "not a row"),
        ({"data": []}, WrongShapeError, "data", "no rows"),
        ([{**TABLE_RECORDS[0], "rooms": 2.5}], WrongTypeError, "[0].rooms", "2.5"),
        ([{"age": 1}], UnknownInputError, "[0]", "missing: 'city', 'rooms', 'new'"),
        ({"columns": ["new", "rooms", "city", "age"], "data": [[True, 2, 3, 30]]},
         WrongTypeError, "data[0][2]", "'city'"),
        ({"inputs": {"age": [1], "city": ["a", "b"], "rooms": [1], "new": [True]}},
         WrongShapeError, "inputs.city", "2 rows"),
        ({"inputs": {"age": 1, "city": ["a"], "rooms": [1], "new": [True]}},
         WrongShapeError, "inputs.age", "a list is wanted"),
        ({"inputs": {"age": [1]}}, UnknownInputError, "inputs", "'city'"),
    ],
)  # fmt: skip
def test_a_wrong_table_is_told_what_and_where(
    body: object, kind: type[InputError], where: str, words: str
) -> None:
    error = fails(body, TABLE)
    assert type(error) is kind, error.message
    assert error.where == where
    assert words in error.message


# Several inputs


@pytest.mark.parametrize(
    "body",
    [
        {"inputs": {"scale": [0.5, 2], "ids": [[1, 2], [3, 4]]}},
        [{"ids": [1, 2], "scale": 0.5}, {"scale": 2, "ids": [3, 4]}],
        {"instances": [{"ids": [1, 2], "scale": 0.5}, {"scale": 2, "ids": [3, 4]}]},
    ],
)
def test_several_inputs_come_by_name(body: object) -> None:
    inputs = decode(body, SEVERAL).inputs
    assert list(inputs) == ["ids", "scale"]
    assert inputs["ids"].tolist() == [[1, 2], [3, 4]]
    assert inputs["scale"].tolist() == [0.5, 2.0]


@pytest.mark.parametrize(
    ("body", "kind", "where"),
    [
        ({"data": [[1, 2]]}, WrongShapeError, "data"),
        ({"inputs": {"ids": [[1, 2]]}}, UnknownInputError, "inputs"),
        ({"inputs": {"ids": [[1, 2]], "scale": [1, 2]}}, WrongShapeError, "scale"),
        ([{"ids": [1, "2"], "scale": 1}], WrongTypeError, "[0].ids[1]"),
        ([{"ids": [1, 2], "scale": 1}, {"ids": [1], "scale": 1}], WrongShapeError, "[1].ids"),
    ],
)
def test_wrong_inputs_are_told_which(body: object, kind: type[InputError], where: str) -> None:
    error = fails(body, SEVERAL)
    assert (type(error), error.where) == (kind, where)


# The quick way


@pytest.mark.parametrize(
    "body",
    [
        b'{"data": [[1, 2, 3]]}',
        b'{"data": [[1.5, 2, -3e5], [0, 0, 0]]}',
    ],
)
def test_the_quick_way_answers_as_the_long_one(body: bytes) -> None:
    codec = Codec(schema())
    quick = codec.quick(body)
    assert quick is not None
    assert quick["x"].tolist() == codec.decode(body).inputs["x"].tolist()
    assert quick["x"].dtype == np.float32


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[[1, 2, 3]]",
        b'{"data": []}',
        b'{"data": [[1, 2]]}',
        b'{"data": [[1, true, 3]]}',
        b'{"data": [[1, null, 3]]}',
        b'{"data": [[1, "2", 3]]}',
        b'{"data": [[1, 1e300, 3]]}',
        b'{"data": [[1, 2, 3]], "id": 1}',
        b'{"other": [[1, 2, 3]]}',
        b'{"data": {"a": 1}}',
    ],
)
def test_the_quick_way_gives_up_at_the_first_doubt(body: bytes) -> None:
    assert Codec(schema()).quick(body) is None
    assert Codec(SEVERAL).quick(body) is None
    assert Codec(TABLE).quick(body) is None


# Answers


def codec_for(*outputs: TensorSpec) -> Codec:
    return Codec(ModelSchema((TensorSpec("x", "float32", (None, 1)),), outputs))


def test_rows_are_answered_with_predictions_and_the_other_outputs() -> None:
    codec = codec_for(
        TensorSpec("label", "int64", (None,)), TensorSpec("probabilities", "float32", (None, 2))
    )
    outputs = {"label": np.array([1]), "probabilities": np.array([[0.1, 0.9]], np.float32)}
    assert (
        codec.encode(outputs, "predictions") == b'{"predictions":[1],"probabilities":[[0.1,0.9]]}'
    )
    assert json.loads(codec.encode(outputs, "outputs")) == {
        "outputs": {"label": [1], "probabilities": [[0.1, 0.9]]}
    }


def test_an_output_named_predictions_does_not_hide_the_first() -> None:
    codec = codec_for(
        TensorSpec("y", "int64", (None,)), TensorSpec("predictions", "int64", (None,))
    )
    outputs = {"y": np.array([1]), "predictions": np.array([2])}
    answer = json.loads(codec.encode(outputs, "predictions"))
    assert answer == {"predictions": [1], "predictions_output": [2]}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (np.array([0.1, 1e-8], np.float32), "[0.1,1e-8]"),
        (np.array([0.1], np.float64), "[0.1]"),
        (np.array([np.nan, np.inf, -np.inf, 1]), "[null,null,null,1.0]"),
        (np.array([1.5], np.float16), "[1.5]"),
        (np.array([True, False]), "[true,false]"),
        (np.array([2**63], np.uint64), "[9223372036854775808]"),
        (np.array(["a", "\u00e9"]), '["a","\u00e9"]'),
        (np.array(["a", None], dtype=object), '["a",null]'),
        (np.array([b"a"]), '["a"]'),
        (np.array([b"a"], dtype=object), '["a"]'),
        (np.array([[1, 2], [3, 4]]).T, "[[1,3],[2,4]]"),
        (np.array([1, 2], dtype=">i4"), "[1,2]"),
        (np.array(1.5), "1.5"),
        (np.array([np.float32(0.1)], dtype=object), "[0.1]"),
        (np.zeros((0, 2)), "[]"),
        ([{0: 0.25, 1: np.float32(0.75)}], '[{"0":0.25,"1":0.75}]'),
        ([{"a": float("nan")}], '[{"a":null}]'),
        ([{np.int64(3): 1.0}], '[{"3":1.0}]'),
    ],
)
def test_every_kind_of_output_is_valid_json(value: Any, text: str) -> None:
    codec = codec_for(TensorSpec("y", "float32", (None,)))
    body = codec.encode({"y": value}, "predictions")
    assert body.decode() == f'{{"predictions":{text}}}'
    json.loads(body)


def test_an_output_without_a_form_in_json_is_an_error() -> None:
    with pytest.raises(TypeError):
        codec_for(TensorSpec("y", "float32", (None,))).encode({"y": object()}, "predictions")


# ---- columns that the model drops ----------------------------------------------------------------

PARTLY = ModelSchema(
    (
        TensorSpec("age", "float32", (None, 1)),
        TensorSpec("id", "string", (None, 1), missing=True, unused=True),
        TensorSpec("city", "string", (None, 1)),
    ),
    OUT,
    layout="table",
)


@pytest.mark.parametrize("anything", [7, 1.5, True, None, "text", [1, 2], {"a": 1}])
@pytest.mark.parametrize("form", ["rows", "records", "split", "named"])
def test_a_column_that_is_not_used_may_hold_anything(form: str, anything: object) -> None:
    names, row = ["age", "id", "city"], [1.5, anything, "Ulm"]
    body = {
        "rows": {"data": [row]},
        "records": {"data": [dict(zip(names, row, strict=True))]},
        "split": {"columns": names[::-1], "data": [row[::-1]]},
        "named": {"inputs": {name: [value] for name, value in zip(names, row, strict=True)}},
    }[form]
    inputs = decode(body, PARTLY).inputs
    assert inputs["age"].tolist() == [[1.5]]
    assert inputs["city"].tolist() == [["Ulm"]]
    assert inputs["id"].shape == (1, 1)
    assert inputs["id"][0, 0] is None or isinstance(inputs["id"][0, 0], str)


@pytest.mark.parametrize(
    "body",
    [
        {"data": [{"city": "Ulm", "age": 1}, {"age": 2, "id": 4, "city": "Bonn"}]},
        {"columns": ["city", "age"], "data": [["Ulm", 1], ["Bonn", 2]]},
        {"inputs": {"city": ["Ulm", "Bonn"], "age": [1, 2]}},
    ],
)
def test_a_column_that_is_not_used_may_be_left_out(body: object) -> None:
    inputs = decode(body, PARTLY).inputs
    assert inputs["age"].tolist() == [[1], [2]]
    assert inputs["city"].tolist() == [["Ulm"], ["Bonn"]]
    assert inputs["id"].shape == (2, 1)


def test_a_column_that_is_used_may_not_be_left_out() -> None:
    assert "missing: 'city'" in fails({"data": [{"age": 1}]}, PARTLY).message
    assert "missing: 'city'" in fails({"inputs": {"age": [1]}}, PARTLY).message
    assert "missing: 'city'" in fails({"columns": ["age"], "data": [[1]]}, PARTLY).message
    ragged = fails({"columns": ["age", "city"], "data": [[1, "Ulm"], [1]]}, PARTLY)
    assert ragged.message

"""Infer requests, read for a model."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest

from scoring.errors import InputError
from scoring.schema import ModelSchema, TensorSpec
from serve.server.v2.answers import AnswerWriter
from serve.server.v2.inputs import Inputs
from serve.server.v2.plan import InferRequest
from serve.server.v2.quick import quick_reader
from serve.server.v2.request import RequestReader
from tests.support.oip import schema

if TYPE_CHECKING:
    from scoring.schema import DType

MATRIX = schema({"x": ("float32", (None, 2))}, {"y": ("float32", (None,)), "z": ("int64", (None,))})
TENSOR = {"name": "x", "shape": [2, 2], "datatype": "FP32", "data": [1, 2, 3, 4.5]}


def reader(model_schema: ModelSchema = MATRIX) -> RequestReader:
    outputs = AnswerWriter(model_schema, "m", "1").ports
    return RequestReader(
        Inputs(model_schema), {name: port.in_json for name, port in outputs.items()}, 64
    )


def read(document: Any, raw: bytes = b"", model_schema: ModelSchema = MATRIX) -> InferRequest:
    text = document if isinstance(document, bytes) else json.dumps(document).encode()
    return reader(model_schema).read(text + raw, len(text) if raw else None)


def of_one(datatype: DType, shape: tuple[int | None, ...] = (None, 2), **given: Any) -> ModelSchema:
    return schema({"x": (datatype, shape)}, {"y": ("float32", (None,))}, **given)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param([1, 2, 3, 4.5], id="flat"),
        pytest.param([[1, 2], [3, 4.5]], id="nested"),
    ],
)
def test_data_is_flat_or_nested(data: Any) -> None:
    found = read({"inputs": [{**TENSOR, "data": data}]}).inputs["x"]
    assert found.dtype == np.float32
    assert found.tolist() == [[1, 2], [3, 4.5]]


def test_what_is_not_known_or_null_changes_nothing() -> None:
    request = read(
        {
            "id": None,
            "parameters": {"sequence_id": 5, "priority": 1},
            "inputs": [{**TENSOR, "parameters": {"content_type": "np"}}],
            "outputs": None,
            "model_name": "other",
        }
    )
    assert (request.id, request.is_plain) == ("", True)


@pytest.mark.parametrize("binary", [True, False, None])
@pytest.mark.parametrize("default", [True, False, None])
def test_an_output_says_itself_how_it_is_wanted(binary: bool | None, default: bool | None) -> None:
    request = read(
        {
            "parameters": {"binary_data_output": default},
            "inputs": [TENSOR],
            "outputs": [{"name": "z", "parameters": {"binary_data": binary}}],
        }
    )
    (wanted,) = request.wanted
    assert wanted.name == "z"
    assert wanted.binary is bool(default if binary is None else binary)


def test_outputs_come_in_the_order_that_is_asked_for() -> None:
    request = read({"inputs": [TENSOR], "outputs": [{"name": "z"}, {"name": "y"}]})
    assert [wanted.name for wanted in request.wanted] == ["z", "y"]


BAD: list[tuple[str, Any, str]] = [
    ("no object", [1], "The body is a list"),
    ("no json", b"{", "The body is not JSON"),
    ("empty", b"", "The body is empty"),
    ("no inputs", {}, "no 'inputs'"),
    ("inputs no list", {"inputs": {}}, "inputs is not a list"),
    ("empty inputs", {"inputs": []}, "missing required input"),
    ("input no object", {"inputs": [3]}, "inputs[0] is a number"),
    ("id", {"id": 5, "inputs": [TENSOR]}, "id is a number"),
    ("parameters", {"parameters": 5, "inputs": [TENSOR]}, "parameters is a number"),
    ("flag", {"parameters": {"binary_data_output": 1}, "inputs": [TENSOR]}, "not a boolean"),
    ("outputs", {"inputs": [TENSOR], "outputs": {}}, "outputs is an object"),
    ("output", {"inputs": [TENSOR], "outputs": ["y"]}, "outputs[0] is a string"),
    ("unknown output", {"inputs": [TENSOR], "outputs": [{"name": "q"}]}, "outputs[0]: unexpected"),
    ("output twice", {"inputs": [TENSOR], "outputs": [{"name": "y"}] * 2}, "outputs[1]"),
    ("input twice", {"inputs": [TENSOR, TENSOR]}, "inputs[1]: the input 'x' stands twice"),
    (
        "classes",
        {"inputs": [TENSOR], "outputs": [{"name": "y", "parameters": {"classification": -1}}]},
        "not a number of classes",
    ),
    (
        "shared memory",
        {"inputs": [{**TENSOR, "parameters": {"shared_memory_region": "a"}}]},
        "shared memory is not supported",
    ),
    (
        "bytes that are not there",
        {"inputs": [{**TENSOR, "data": None, "parameters": {"binary_data_size": 16}}]},
        "inputs[0] says that it has 16 bytes",
    ),
    (
        "negative size",
        {"inputs": [{**TENSOR, "parameters": {"binary_data_size": -1}}]},
        "not a number of bytes",
    ),
]
BAD += [
    (name, {"inputs": [{**TENSOR, **changed}]}, words)
    for name, changed, words in (
        ("name", {"name": "q"}, "inputs[0]: unexpected inference input 'q'"),
        ("name no string", {"name": 5}, "inputs[0]: unexpected inference input 5"),
        ("datatype", {"datatype": "INT32"}, "'x' data-type is 'INT32', but the model expects"),
        ("no datatype", {"datatype": None}, "data-type is None"),
        ("half", {"datatype": "FP16"}, "sending FP16 data via JSON is not supported"),
        ("rank", {"shape": [4]}, "Expected [-1, 2], got [4]"),
        ("fixed size", {"shape": [1, 4]}, "Expected [-1, 2], got [1, 4]"),
        ("no rows", {"shape": [0, 2], "data": []}, "unexpected shape"),
        ("negative", {"shape": [-2, -2]}, "unexpected shape"),
        ("huge", {"shape": [2**63, 2]}, "unexpected shape"),
        ("beyond whole numbers", {"shape": [2**70, 2]}, "a list of whole numbers"),
        ("shape", {"shape": "2,2"}, "a list of whole numbers"),
        ("float in shape", {"shape": [2.0, 2]}, "a list of whole numbers"),
        ("boolean in shape", {"shape": [True, 2]}, "a list of whole numbers"),
        ("too few", {"data": [1, 2, 3]}, "inputs[0].data has 3 elements"),
        ("data no list", {"data": "1234"}, "inputs[0].data is a string"),
        ("other nesting", {"data": [[1, 2]]}, "the tensor says [2, 2]"),
        ("ragged", {"data": [[1, 2], [3]]}, "inputs[0].data[1] has 1 value"),
        ("string", {"data": [1, 2, 3, "x"]}, "inputs[0].data[3] is a string"),
        ("boolean", {"data": [[1, 2], [True, 4]]}, "inputs[0].data[1][0] is a boolean"),
        ("null", {"data": [1, None, 3, 4]}, "inputs[0].data[1] is null"),
        ("not a number", {"data": [1, "NaN", 3, 4]}, "inputs[0].data[1] is NaN"),
        ("too large", {"data": [1, 1e39, 3, 4]}, "inputs[0].data[1] is 1e+39"),
        ("object", {"data": [1, {}, 3, 4]}, "inputs[0].data[1] is an object"),
    )
]


@pytest.mark.parametrize(("document", "words"), [pytest.param(d, w, id=name) for name, d, w in BAD])
def test_bad_requests_are_refused_with_the_place(document: Any, words: str) -> None:
    with pytest.raises(InputError) as caught:
        read(document)
    assert words in caught.value.message


@pytest.mark.parametrize(
    "document", [pytest.param(d, id=name) for name, d, _ in BAD if not isinstance(d, bytes)]
)
def test_the_quick_way_takes_nothing_that_the_long_way_refuses(document: Any) -> None:
    quick = quick_reader(MATRIX)
    text = json.dumps(document).encode()
    assert quick(text) is None
    assert quick(text + b" " * 9000) is None


@pytest.mark.parametrize("padding", [0, 9000])
@pytest.mark.parametrize("extra", [{}, {"id": "a"}])
def test_the_quick_way_finds_what_the_long_way_finds(padding: int, extra: dict[str, str]) -> None:
    text = json.dumps({"inputs": [TENSOR], **extra}).encode() + b" " * padding
    found = quick_reader(MATRIX)(text)
    assert found is not None
    inputs, request_id = found
    request = reader().read(text)
    assert inputs["x"].dtype == request.inputs["x"].dtype
    assert inputs["x"].tolist() == request.inputs["x"].tolist()
    assert request_id == request.id


@pytest.mark.parametrize(
    "data", ["[[1,2],[3,[4]]]", "[1,2,[3],4]", "[1,2,3,true]", "[1,2,3,1e400]", "[[1,2,3,4]]"]
)
def test_large_bodies_in_doubt_go_the_long_way(data: str) -> None:
    tensor = f'{{"name":"x","shape":[2,2],"datatype":"FP32","data":{data}}}'
    assert quick_reader(MATRIX)(f'{{"inputs":[{tensor}]}}{" " * 9000}'.encode()) is None


def test_missing_values_are_null_where_the_model_takes_them() -> None:
    inputs = {"inputs": [{**TENSOR, "data": [1, None, "NaN", 4]}]}
    found = read(inputs, model_schema=of_one("float32", missing=True)).inputs["x"]
    assert np.isnan(found[0, 1])
    assert np.isnan(found[1, 0])


def test_whole_numbers_are_checked_against_their_range() -> None:
    tensor = {"name": "x", "shape": [1, 2], "datatype": "UINT8", "data": [1, 256]}
    with pytest.raises(InputError, match=r"data\[1\] is 256"):
        read({"inputs": [tensor]}, model_schema=of_one("uint8"))


def test_a_json_body_that_is_too_deep_is_told_as_that() -> None:
    text = b'{"inputs":' + b"[" * 100 + b"]" * 100 + b"}"
    with pytest.raises(InputError, match="nested too deep"):
        read(text)


# Binary


def binary(size: int, **changed: Any) -> dict[str, Any]:
    tensor = {k: v for k, v in TENSOR.items() if k != "data"}
    return {**tensor, "parameters": {"binary_data_size": size}, **changed}


def test_binary_and_json_tensors_are_mixed() -> None:
    two = schema(
        {"x": ("float32", (None, 2)), "n": ("int64", (None,)), "s": ("string", (None,))},
        {"y": ("float32", (None,))},
    )
    document = {
        "inputs": [
            {
                "name": "s",
                "shape": [2],
                "datatype": "BYTES",
                "parameters": {"binary_data_size": 10},
            },
            {"name": "n", "shape": [2], "datatype": "INT64", "data": [5, 6]},
            binary(16),
        ]
    }
    raw = b"\1\0\0\0a\1\0\0\0b" + np.array([1, 2, 3, 4.5], dtype="<f4").tobytes()
    found = read(document, raw, two).inputs
    assert list(found) == ["x", "n", "s"]
    assert found["x"].tolist() == [[1, 2], [3, 4.5]]
    assert found["n"].tolist() == [5, 6]
    assert found["s"].tolist() == ["a", "b"]


def test_the_json_of_binary_requests_is_kept_and_their_bytes_are_not() -> None:
    found = reader()
    text = json.dumps({"inputs": [binary(16)]}).encode()
    for values in ([1, 2, 3, 4], [5, 6, 7, 8]):
        raw = np.array(values, dtype="<f4").tobytes()
        request = found.read(bytearray(text + raw), len(text))
        assert request.inputs["x"].ravel().tolist() == values
    with pytest.raises(InputError, match="15 are there"):
        found.read(text + raw[:15], len(text))
    with pytest.raises(InputError, match="1 bytes of binary data that none"):
        found.read(text + raw + b"\0", len(text))


def test_no_more_plans_are_kept_than_a_few() -> None:
    found = reader()
    raw = np.zeros(4, dtype="<f4").tobytes()
    for number in range(200):
        text = json.dumps({"inputs": [binary(16)], "a": number}).encode()
        found.read(text + raw, len(text))
    assert len(found._plans) <= 64


@pytest.mark.parametrize(
    ("value", "words"),
    [
        pytest.param(np.nan, "element 1, is NaN", id="nan"),
        pytest.param(np.inf, "infinite", id="inf"),
    ],
)
def test_binary_numbers_are_finite_where_the_model_needs_that(value: float, words: str) -> None:
    raw = np.array([1, value, 3, 4], dtype="<f4").tobytes()
    with pytest.raises(InputError, match=words):
        read({"inputs": [binary(16)]}, raw)
    taken = read({"inputs": [binary(16)]}, raw, of_one("float32", missing=True)).inputs["x"]
    assert np.array_equal(taken.ravel()[1], value, equal_nan=True)


def test_large_finite_numbers_are_finite() -> None:
    raw = np.full(4, 3e38, dtype="<f4").tobytes()
    assert read({"inputs": [binary(16)]}, raw).inputs["x"].max() == np.float32(3e38)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        pytest.param({"data": [1, 2, 3, 4]}, "both 'data' and", id="both"),
        pytest.param({"datatype": "FP64"}, "data-type is 'FP64'", id="datatype"),
        pytest.param({"shape": [1, 2]}, "takes 8", id="size"),
        pytest.param({"shape": [2**31, 2**31]}, "unexpected shape", id="overflow"),
    ],
)
def test_bad_binary_tensors_are_refused(changed: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError) as caught:
        read({"inputs": [binary(16, **changed)]}, b"\0" * 16)
    assert words in caught.value.message


def test_bf16_is_taken_for_float32() -> None:
    raw = (np.array([1, 2, 3, 4], dtype="<f4").view("<u4") >> 16).astype("<u2").tobytes()
    found = read({"inputs": [binary(8, datatype="BF16")]}, raw).inputs["x"]
    assert found.tolist() == [[1, 2], [3, 4]]


def test_a_length_of_json_beyond_the_body_is_refused() -> None:
    with pytest.raises(InputError, match="Content-Length is 9, and the body has 2 bytes"):
        reader().read(b"{}", 9)


# Bytes alone


def test_bytes_alone_are_the_only_input() -> None:
    request = reader().read(np.array([1, 2, 3, 4], dtype="<f4").tobytes(), 0)
    assert request.inputs["x"].tolist() == [[1, 2], [3, 4]]
    assert all(wanted.binary for wanted in request.wanted)


def test_text_alone_is_one_string() -> None:
    request = reader(of_one("string", (None,))).read("grün".encode(), 0)
    assert request.inputs["x"].tolist() == ["grün"]


@pytest.mark.parametrize(
    ("model_schema", "body"),
    [
        pytest.param(MATRIX, b"\0" * 9, id="no whole rows"),
        pytest.param(MATRIX, b"", id="nothing"),
        pytest.param(of_one("float32", (None, None)), b"\0" * 8, id="two free sizes"),
        pytest.param(of_one("string", (None, 2)), b"ab", id="two strings"),
        pytest.param(of_one("string", (None,)), b"\xff", id="no text"),
        pytest.param(
            schema({"a": ("int8", (None,)), "b": ("int8", (None,))}, {"y": ("int8", (None,))}),
            b"\0",
            id="two inputs",
        ),
    ],
)
def test_bytes_alone_that_tell_no_shape_are_refused(model_schema: ModelSchema, body: bytes) -> None:
    with pytest.raises(InputError):
        reader(model_schema).read(body, 0)


# Tables and several inputs

TABLE = ModelSchema(
    inputs=(
        TensorSpec("age", "float64", (None, 1), missing=True),
        TensorSpec("town", "string", (None, 1)),
        TensorSpec("note", "string", (None, 1), missing=True, unused=True),
    ),
    outputs=(TensorSpec("y", "float32", (None,)),),
    layout="table",
)
AGE = {"name": "age", "shape": [2], "datatype": "FP64", "data": [1.5, None]}
TOWN = {"name": "town", "shape": [2, 1], "datatype": "BYTES", "data": ["a", "b"]}


def test_columns_come_with_and_without_their_second_dimension() -> None:
    found = read({"inputs": [TOWN, AGE]}, model_schema=TABLE).inputs
    assert list(found) == ["age", "town", "note"]
    assert {array.shape for array in found.values()} == {(2, 1)}
    assert found["note"].tolist() == [[None], [None]]


def test_a_column_that_is_dropped_may_hold_anything() -> None:
    note = {"name": "note", "shape": "?", "datatype": "FP16", "data": {}}
    found = read({"inputs": [TOWN, AGE, note]}, model_schema=TABLE).inputs
    assert found["note"].tolist() == [[None], [None]]


def test_columns_have_the_same_number_of_rows() -> None:
    short = {**AGE, "shape": [1], "data": [1]}
    with pytest.raises(InputError, match="'age' has 1 rows and 'town' 2"):
        read({"inputs": [TOWN, short]}, model_schema=TABLE)


def test_a_missing_input_is_named() -> None:
    with pytest.raises(InputError, match=r"Got input\(s\) 'town', but missing .* 'age'"):
        read({"inputs": [TOWN]}, model_schema=TABLE)


def test_an_input_without_dimensions_is_one_value() -> None:
    scalar = schema({"x": ("float32", ())}, {"y": ("float32", ())})
    tensor = {"name": "x", "shape": [], "datatype": "FP32", "data": [5]}
    assert read({"inputs": [tensor]}, model_schema=scalar).inputs["x"].shape == ()


def test_half_precision_outputs_are_not_promised_in_json() -> None:
    half = schema({"x": ("float32", (None, 2))}, {"y": ("float16", (None,))})
    with pytest.raises(InputError, match="for output 'y'"):
        read({"inputs": [TENSOR]}, model_schema=half)
    inputs = {"inputs": [TENSOR], "parameters": {"binary_data_output": True}}
    assert read(inputs, model_schema=half).wanted[0].binary
    assert msgspec.structs.asdict(read(inputs, model_schema=half))["is_plain"] is False

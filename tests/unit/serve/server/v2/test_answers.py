"""Infer answers, written for a model."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from scoring.errors import FieldpostError
from scoring.http import Response
from scoring.schema import ModelSchema, TensorSpec
from serve.server.v2.answers import AnswerWriter
from serve.server.v2.plan import InferRequest, Wanted
from tests.support.oip import DTYPES, samples, schema


def write(
    value: Any, spec: TensorSpec, *, binary: bool = False, top: int = 0, labels: Any = ()
) -> Response:
    model = ModelSchema(inputs=(), outputs=(spec,), classes=labels)
    request = InferRequest({}, "", (Wanted(spec.name, binary=binary, classes=top),))
    return AnswerWriter(model, "m", "3").write(request, {spec.name: value})


def output(response: Response) -> dict[str, Any]:
    assert isinstance(response.body, bytes)
    (found,) = json.loads(response.body)["outputs"]
    return dict(found)


def test_an_answer_has_what_the_protocol_says() -> None:
    response = write(np.array([[1, 2]], dtype=np.int32), TensorSpec("y", "int32", (None, 2)))
    assert isinstance(response.body, bytes)
    assert json.loads(response.body) == {
        "model_name": "m",
        "model_version": "3",
        "outputs": [{"name": "y", "datatype": "INT32", "shape": [1, 2], "data": [1, 2]}],
    }


@pytest.mark.parametrize("dtype", [dtype for dtype in DTYPES if dtype != "float16"])
def test_the_short_and_the_long_way_write_the_same(dtype: Any) -> None:
    model = schema({"x": ("float32", (None,))}, {"y": (dtype, (None, 3))})
    writer = AnswerWriter(model, "m", "1")
    outputs = {"y": samples(dtype)}
    request = InferRequest({}, "a", (Wanted("y", binary=False),))
    short, long = writer.plain(outputs, "a"), writer.write(request, outputs).body
    assert isinstance(long, bytes)
    assert short is None if dtype == "string" else short == long
    assert json.loads(long)["id"] == "a"


def test_numbers_that_json_does_not_have_are_named() -> None:
    value = np.array([np.nan, np.inf, -np.inf, 0.1], dtype=np.float32)
    spec = TensorSpec("y", "float32", (None,))
    data = output(write(value, spec))["data"]
    assert data == ["NaN", "Infinity", "-Infinity", 0.1]
    back = np.array(data, dtype=np.float32)
    assert np.array_equal(back, value, equal_nan=True)
    writer = AnswerWriter(ModelSchema(inputs=(), outputs=(spec,)), "m", "1")
    assert writer.plain({"y": value}) is None


def test_maps_are_json_objects_in_strings() -> None:
    found = output(write([{0: 0.25, 1: 0.75}], TensorSpec("p", "map", (None,))))
    assert found["datatype"] == "BYTES"
    assert found["shape"] == [1]
    assert found["parameters"] == {"content_type": "application/json"}
    assert [json.loads(text) for text in found["data"]] == [{"0": 0.25, "1": 0.75}]


@pytest.mark.parametrize(
    ("value", "datatype"),
    [
        pytest.param(np.array([1.5], dtype=">f4"), "FP32", id="byte order"),
        pytest.param(np.array([1.5], dtype=np.float64), "FP64", id="other than the schema"),
        pytest.param(np.array(["a"], dtype="U1"), "BYTES", id="text"),
        pytest.param(np.array([[1, 2], [3, 4]], dtype=np.int64).T, "INT64", id="transposed"),
    ],
)
def test_what_models_give_beside_their_schema_is_told_as_it_is(value: Any, datatype: str) -> None:
    spec = TensorSpec("y", "float32", (None,))
    found = output(write(value, spec))
    assert found["datatype"] == datatype
    assert found["data"] == value.ravel().tolist()
    raw = write(value, spec, binary=True).body
    assert isinstance(raw, bytes)
    assert raw.endswith(np.ascontiguousarray(value, value.dtype.newbyteorder("<")).tobytes()) or (
        datatype == "BYTES"
    )


def test_strings_that_are_no_unicode_are_still_answered() -> None:
    spec = TensorSpec("y", "string", (None,))
    value: Any = np.array(["\ud800x", b"\xff", None], dtype=object)
    assert output(write(value, spec))["data"] == ["?x", "\ufffd", ""]


def test_half_precision_is_never_json() -> None:
    with pytest.raises(FieldpostError, match="FP16"):
        write(np.zeros(1, np.float16), TensorSpec("y", "float32", (None,)))


def test_binary_outputs_stand_behind_the_json() -> None:
    model = schema({}, {"a": ("int8", (None,)), "b": ("string", (None,)), "c": ("int8", (None,))})
    wanted = (Wanted("b", binary=True), Wanted("a", binary=False), Wanted("c", binary=True))
    outputs: Any = {
        "a": np.array([1], np.int8),
        "b": np.array(["xy"], object),
        "c": np.array([7], np.int8),
    }
    response = AnswerWriter(model, "m", "1").write(InferRequest({}, "", wanted), outputs)
    headers = dict(response.headers)
    assert headers["content-type"] == "application/octet-stream"
    size = int(headers["inference-header-content-length"])
    assert isinstance(response.body, bytes)
    assert response.body[size:] == b"\2\0\0\0xy\7"
    found = json.loads(response.body[:size])["outputs"]
    assert [tensor.get("parameters") for tensor in found] == [
        {"binary_data_size": 6},
        None,
        {"binary_data_size": 1},
    ]


LABELS = ("setosa", "versicolor", "virginica")


@pytest.mark.parametrize(
    ("value", "count", "classes", "wanted"),
    [
        pytest.param(
            np.array([[0.1, 0.7, 0.2]], np.float32),
            2,
            LABELS,
            ["0.700000:1:versicolor", "0.200000:2:virginica"],
            id="labels",
        ),
        pytest.param(np.array([[3, 5]], np.int64), 1, LABELS, ["5:1"], id="other labels"),
        pytest.param(np.array([[1, 1]], np.uint8), 9, (), ["1:0", "1:1"], id="ties"),
        pytest.param(np.array([[np.nan, 1.0]]), 1, (), ["1.000000:1"], id="nan"),
        pytest.param(
            np.array([[-(2**63), 2**63 - 1]]), 2, (), [f"{2**63 - 1}:1", f"{-(2**63)}:0"], id="far"
        ),
        pytest.param([{"a": 0.25, "b": 0.75}], 1, ("a", "b"), ["0.750000:1:b"], id="map"),
    ],
)
def test_the_top_classes(value: Any, count: int, classes: Any, wanted: list[str]) -> None:
    dtype: Any = "map" if isinstance(value, list) else "float32"
    spec = TensorSpec("p", dtype, (None, len(classes) or None))
    found = output(write(value, spec, top=count, labels=classes))
    assert found["datatype"] == "BYTES"
    assert found["shape"] == [1, len(wanted)]
    assert found["data"] == wanted


def test_classes_without_a_batch() -> None:
    spec = TensorSpec("p", "float32", (2, 2))
    found = output(write(np.array([[1, 2], [3, 4]], np.float32), spec, top=1))
    assert (found["shape"], found["data"]) == ([1], ["4.000000:3"])


def test_text_has_no_classes() -> None:
    with pytest.raises(FieldpostError, match="class result not available for output 'p'"):
        write(np.array(["a"], object), TensorSpec("p", "string", (None,)), top=1)

"""Any tensor comes back as it was sent, in JSON and in bytes."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from scoring.runtimes.base import NUMPY_DTYPES
from scoring.schema import DType
from serve.server.v2.answers import AnswerWriter
from serve.server.v2.datatypes import BY_SCHEMA
from serve.server.v2.inputs import Inputs
from serve.server.v2.plan import InferRequest, Wanted
from serve.server.v2.quick import quick_reader
from serve.server.v2.request import RequestReader
from serve.server.v2.tensors import from_raw, to_raw
from tests.support.oip import DTYPES, schema

shapes = hnp.array_shapes(min_dims=1, max_dims=4, min_side=1, max_side=5)
texts = st.text(st.characters(codec="utf-8"), max_size=8)


@st.composite
def tensors(draw: st.DrawFn, *, finite: bool = False) -> tuple[DType, Any]:
    dtype: DType = draw(st.sampled_from(DTYPES))
    shape = draw(shapes)
    if dtype == "string":
        return dtype, draw(hnp.arrays(object, shape, elements=texts))
    numpy_dtype = NUMPY_DTYPES[dtype]
    if numpy_dtype.kind != "f":
        return dtype, draw(hnp.arrays(numpy_dtype, shape))
    elements: Any = {"allow_nan": not finite, "allow_infinity": not finite}
    return dtype, draw(hnp.arrays(numpy_dtype, shape, elements=elements))


def same(one: Any, other: Any) -> bool:
    if one.dtype.kind == "O":
        return bool(one.tolist() == other.tolist())
    return one.dtype == other.dtype and np.array_equal(one, other, equal_nan=one.dtype.kind == "f")


def reader(inputs: dict[str, Any]) -> RequestReader:
    model = schema(inputs, {"y": ("float32", (None,))}, missing=True)
    return RequestReader(Inputs(model), {"y": True}, 64)


@given(tensors())
def test_bytes_come_back(tensor: tuple[DType, Any]) -> None:
    dtype, array = tensor
    back = from_raw(to_raw(array), BY_SCHEMA[dtype], array.shape, "x")
    assert same(back, array)


@given(st.lists(tensors(finite=True), min_size=1, max_size=4), st.data())
def test_a_request_in_json_and_bytes_is_read_as_it_was_meant(
    given_tensors: list[tuple[DType, Any]], data: st.DataObject
) -> None:
    specs, documents, blobs = {}, [], []
    for number, (dtype, array) in enumerate(given_tensors):
        name = f"x{number}"
        specs[name] = (dtype, (array.shape[0], *(None for _ in array.shape[1:])))
        document = {"name": name, "shape": array.shape, "datatype": BY_SCHEMA[dtype]}
        if dtype == "float16" or data.draw(st.booleans()):
            blobs.append(to_raw(array))
            document["parameters"] = {"binary_data_size": len(blobs[-1])}
        else:
            nested = data.draw(st.booleans())
            document["data"] = array.tolist() if nested else array.ravel().tolist()
        documents.append(document)
    text = json.dumps({"inputs": documents}).encode()
    raw = b"".join(blobs)
    found = reader(specs).read(text + raw, len(text) if raw else None).inputs
    for number, (_, array) in enumerate(given_tensors):
        assert same(found[f"x{number}"], array)


@given(tensors(), st.booleans())
def test_an_output_is_written_so_that_a_client_reads_it(
    tensor: tuple[DType, Any], binary: bool
) -> None:
    dtype, array = tensor
    binary = binary or dtype == "float16"
    model = schema({}, {"y": (dtype, (None,) * array.ndim)})
    request = InferRequest({}, "", (Wanted("y", binary=binary),))
    response = AnswerWriter(model, "m", "1").write(request, {"y": array})
    assert isinstance(response.body, bytes)
    size = int(dict(response.headers).get("inference-header-content-length", len(response.body)))
    (output,) = json.loads(response.body[:size])["outputs"]
    assert output["datatype"] == BY_SCHEMA[dtype]
    if binary:
        back = from_raw(response.body[size:], output["datatype"], output["shape"], "y")
    else:
        # As tritonclient and KServe's clients do.
        back = np.array(output["data"], dtype=NUMPY_DTYPES[dtype]).reshape(output["shape"])
    assert same(back, array)


numbers = st.floats(width=32) | st.integers() | st.booleans() | st.none() | texts
rows = st.lists(st.lists(numbers, min_size=1, max_size=3), min_size=1, max_size=3) | st.lists(
    st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=2, max_size=6
)


@given(rows, st.integers(0, 4), st.integers(1, 3), st.booleans())
def test_the_quick_way_agrees_with_the_long_one(
    data: Any, count: int, width: int, large: bool
) -> None:
    model = schema({"x": ("float32", (None, 2))}, {"y": ("float32", (None,))})
    tensor = {"name": "x", "shape": [count, width], "datatype": "FP32", "data": data}
    text = json.dumps({"inputs": [tensor]}).encode() + b" " * (9000 if large else 0)
    quick = quick_reader(model)(text)
    if quick is not None:
        found = RequestReader(Inputs(model), {"y": True}, 64).read(text).inputs
        assert same(found["x"], quick[0]["x"])

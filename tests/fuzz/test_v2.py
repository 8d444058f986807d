"""Whatever is sent as an infer request is read or refused, quickly and within its own size."""

from __future__ import annotations

import contextlib
import json
import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from scoring.errors import InputError
from serve.server.v2.inputs import Inputs
from serve.server.v2.quick import quick_reader
from serve.server.v2.request import RequestReader
from tests.support.oip import DTYPES, schema
from tests.support.server import Client, post, serve_model

MODEL = schema({dtype: (dtype, (None, 2)) for dtype in DTYPES}, {"y": ("float32", (None,))})
ONE = schema({"x": ("float32", (None, 2))}, {"y": ("float32", (None,))})
NUMBERS = [0, 1, 2, -1, 2**31, 2**32, 2**53, 2**62, 2**63, 2**64, -(2**63), 10**30, 1.5, 1e308]

sizes = st.sampled_from(NUMBERS) | st.integers(0, 40)
scalars = st.none() | st.booleans() | sizes | st.text(max_size=4) | st.floats()
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)
names = st.sampled_from([*DTYPES, "x", "y", ""])
datatypes = st.sampled_from(["FP32", "BYTES", "BOOL", "INT64", "UINT8", "FP16", "BF16", "FP64", ""])
parameters = st.fixed_dictionaries(
    {}, optional={"binary_data_size": sizes, "binary_data": values, "classification": values}
)
tensor = st.fixed_dictionaries(
    {},
    optional={
        "name": names | values,
        "shape": st.lists(sizes, max_size=3) | values,
        "datatype": datatypes | values,
        "data": values,
        "parameters": parameters | values,
    },
)
documents = st.fixed_dictionaries(
    {"inputs": st.lists(tensor, max_size=4) | values},
    optional={
        "id": values,
        "outputs": st.lists(tensor, max_size=2) | values,
        "parameters": values,
    },
)


def reader(model: Any) -> RequestReader:
    return RequestReader(Inputs(model), {"y": True}, 64)


READERS = [reader(MODEL), reader(ONE)]


@given(documents, st.binary(max_size=64), st.booleans(), st.sampled_from(READERS))
@settings(max_examples=150)
def test_any_document_is_read_or_refused(
    document: Any, raw: bytes, whole: bool, found: RequestReader
) -> None:
    text = json.dumps(document).encode()
    with contextlib.suppress(InputError):
        found.read(text + raw, None if whole else len(text))


@given(st.binary(max_size=200), st.integers(0, 300), st.sampled_from(READERS))
@example(b'{"inputs":[' + b"[" * 900 + b"]" * 900 + b"]}", 0, READERS[1])
def test_any_bytes_are_read_or_refused(body: bytes, size: int, found: RequestReader) -> None:
    for json_size in (None, size, 0):
        with contextlib.suppress(InputError):
            found.read(body, json_size)
    quick_reader(ONE)(body)
    quick_reader(ONE)(body + b" " * 9000)


def _good() -> tuple[bytes, bytes]:
    tensors: list[dict[str, Any]] = [
        {"name": "float32", "shape": [2, 2], "datatype": "FP32"},
        {"name": "string", "shape": [2, 2], "datatype": "BYTES"},
    ]
    blobs = [np.ones(4, "<f4").tobytes(), b"\1\0\0\0a" * 4]
    for document, blob in zip(tensors, blobs, strict=True):
        document["parameters"] = {"binary_data_size": len(blob)}
    return json.dumps({"inputs": tensors}).encode(), b"".join(blobs)


MIXED = reader(
    schema(
        {"float32": ("float32", (None, 2)), "string": ("string", (None, 2))},
        {"y": ("float32", (None,))},
    )
)


@given(st.data())
@settings(max_examples=150)
def test_a_good_request_with_bytes_changed_is_read_or_refused(data: st.DataObject) -> None:
    text, raw = _good()
    body = bytearray(text + raw)
    assert MIXED.read(bytes(body), len(text)).inputs
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    body = body[: data.draw(st.integers(0, len(body)))]
    with contextlib.suppress(InputError):
        MIXED.read(body, len(text))


@pytest.mark.parametrize("datatype", ["FP32", "BYTES", "BOOL", "INT64"])
@pytest.mark.parametrize("shape", [[2**31, 2], [2**62, 2], [2**40, 2]])
def test_nothing_is_allocated_for_what_is_only_claimed(datatype: str, shape: list[int]) -> None:
    names = {"FP32": "float32", "BYTES": "string", "BOOL": "bool", "INT64": "int64"}
    sent = {"name": names[datatype], "shape": shape, "datatype": datatype}
    for extra in ({"data": [1]}, {"parameters": {"binary_data_size": 8}}):
        text = json.dumps({"inputs": [{**sent, **extra}]}).encode()
        raw = b"\0" * 8 if "parameters" in extra else b""
        tracemalloc.start()
        with pytest.raises(InputError):
            READERS[0].read(text + raw, len(text) if raw else None)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 1_000_000


@given(st.lists(documents, min_size=1, max_size=8), st.binary(max_size=40), st.booleans())
@settings(max_examples=15, deadline=None)
def test_a_live_server_answers_whatever_is_sent(sent: list[Any], raw: bytes, whole: bool) -> None:
    with serve_model() as server, Client(server.port) as client:
        for document in sent:
            text = json.dumps(document).encode()
            length = [] if whole else [f"Inference-Header-Content-Length: {len(text)}"]
            client.send(post(text + raw, "/v2/models/sums/infer", *length))
            answer = client.read()
            assert answer.status in {200, 400}
            if answer.status == 400:
                assert list(json.loads(answer.body)) == ["error"]

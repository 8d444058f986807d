"""Bodies of no meaning: whatever comes, it is decoded or is the sender's fault."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scoring.errors import InputError
from scoring.payload import Codec
from serve.server import mlflow, v1
from tests.support.small_models import Classifier, Columns

MODELS = [
    cast("Any", SimpleNamespace(schema=model.schema, codec=Codec(model.schema), name="m"))
    for model in (Classifier, Columns)
]
NAMES = ["left", "right", "x", "name", "note", "count", "size", "known", "0", "1", "", "b64"]
KEYS = [
    *("instances", "inputs", "dataframe_split", "dataframe_records", "params", "signature_name"),
    *("columns", "data", "index"),
]

leaves = st.sampled_from([None, True, 0, -1, 1.5, 1e300, 2**70, "", "a", "1", "é", *NAMES])
values = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(NAMES + KEYS), inner, max_size=4)
    ),
    max_leaves=12,
)
bodies = st.dictionaries(st.sampled_from(KEYS), values, max_size=2) | values
cells = st.sampled_from(["", "1", "a", '"', '""', ",", "\n", "\r", "\t", "nan", "\0", "1e999", "-"])
tables = st.builds(
    lambda header, rest: ",".join(header) + "\n" + "".join(rest),
    st.lists(st.sampled_from(NAMES), min_size=1, max_size=6),
    st.lists(cells | st.just(","), max_size=24),
)


def decodes(decode: Any, body: bytes) -> None:
    for model in MODELS:
        try:
            inputs, _ = decode(model, body)
        except InputError:
            continue
        assert set(inputs) == {spec.name for spec in model.schema.inputs}


@pytest.mark.parametrize("decode", [v1.decode, mlflow.decode], ids=["v1", "mlflow"])
@given(bodies)
@settings(max_examples=300, deadline=None)
def test_json_of_any_form(decode: Any, value: Any) -> None:
    decodes(decode, _dump(value))


def _dump(value: Any) -> bytes:
    import json

    return json.dumps(value).encode()


@pytest.mark.parametrize("decode", [v1.decode, mlflow.decode, mlflow.decode_csv])
@given(st.binary(max_size=200))
@settings(max_examples=200, deadline=None)
def test_bytes_of_any_kind(decode: Any, body: bytes) -> None:
    decodes(decode, body)


@given(tables)
@settings(max_examples=400, deadline=None)
def test_csv_of_any_form(text: str) -> None:
    decodes(mlflow.decode_csv, text.encode())


@pytest.mark.parametrize("decode", [v1.decode, mlflow.decode], ids=["v1", "mlflow"])
@pytest.mark.parametrize("depth", [63, 100, 1000, 100_000])
def test_deep_json_does_not_overflow(decode: Any, depth: int) -> None:
    body = b'{"instances":' + b"[" * depth + b'{"b64":"AA=="}' + b"]" * depth + b"}"
    decodes(decode, body)
    decodes(decode, b'{"inputs":' + b'{"a":' * depth + b'{"b64":1}' + b"}" * depth + b"}")


def test_a_long_cell_is_the_senders_fault_or_a_text() -> None:
    header = "name,note,count,size,known\n"
    decodes(mlflow.decode_csv, f"{header}{'a' * 200_000},b,1,2,true\n".encode())
    decodes(mlflow.decode_csv, f"{header}a,b,{'9' * 5000},2,true\n".encode())
    decodes(v1.decode, orjson.dumps({"instances": [{"name": {"b64": "A" * 200_000}}]}))

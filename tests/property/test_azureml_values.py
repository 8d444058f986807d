"""Whatever JSON goes in or out of a script, it is what Python's own `json` makes of it."""

from __future__ import annotations

import contextlib
import inspect
import json
from typing import Any
from urllib.parse import urlencode

from hypothesis import given
from hypothesis import strategies as st

from scoring.azureml import inputs
from scoring.azureml.loading import Script
from scoring.azureml.outputs import dumps
from scoring.errors import InputError
from scoring.http import Request

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(), max_size=8)
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4)
    ),
    max_leaves=20,
)


def run(data: Any) -> None:
    pass


READ = inputs.reader(
    Script(run, run, "schema", tuple(inspect.signature(run).parameters.values()), False),
    strict=False,
)


@given(values)
def test_answers_say_what_json_says(value: Any) -> None:
    assert json.loads(dumps(value)) == ({} if value is None else json.loads(json.dumps(value)))


@given(values, st.booleans())
def test_bodies_are_read_as_json_reads_them(value: Any, ascii_only: bool) -> None:
    text = json.dumps({"data": value}, ensure_ascii=ascii_only)
    body = text.encode("utf-8", "surrogatepass")
    expected: Any = InputError
    with contextlib.suppress(ValueError):
        expected = json.loads(body)["data"]
    try:
        found = READ(Request("POST", "/score", body=body), "application/json")["data"]
    except InputError:
        found = InputError
    assert found == expected
    assert type(found) is type(expected)


@given(st.binary(max_size=40))
def test_no_body_is_too_broken_for_an_answer(body: bytes) -> None:
    with contextlib.suppress(InputError):
        READ(Request("POST", "/score", body=body), "application/json")


@given(st.dictionaries(st.text(max_size=5), st.text(max_size=8), max_size=4))
def test_queries_come_back(pairs: dict[str, str]) -> None:
    query = urlencode({k: json.dumps(v) for k, v in pairs.items()}, errors="surrogatepass")
    with contextlib.suppress(UnicodeEncodeError):
        "".join([*pairs, *pairs.values()]).encode()
        assert inputs.query_values(query) == pairs

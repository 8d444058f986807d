from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scoring.azureml import events


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("text/event-stream", True),
        ("Text/Event-Stream", True),
        ("application/json, text/event-stream;q=0.5", True),
        ("text/event-stream;charset=utf-8", True),
        ("text/event-stream;q=0", False),
        ("text/event-stream; q=0.000", False),
        ("*/*", False),
        ("text/*", False),
        ("", False),
        (",;", False),
    ],
)
def test_who_wants_events(accept: str, expected: bool) -> None:
    assert events.wants_events(accept) is expected


@pytest.mark.parametrize(
    ("value", "sent"),
    [
        ("text", "data: text\n\n"),
        ("", "data: \n\n"),
        ("a\nb\r\nc\rd", "data: a\ndata: b\ndata: c\ndata: d\n\n"),
        ("a\u2028b", "data: a\u2028b\n\n"),
        (b"bytes", "data: bytes\n\n"),
        ({"a": [1.5, None]}, 'data: {"a":[1.5,null]}\n\n'),
        ([1, 2], "data: [1,2]\n\n"),
        (None, "data: null\n\n"),
        (3, "data: 3\n\n"),
        (np.float32(0.5), "data: 0.5\n\n"),
        ({"event": "end"}, "event: end\ndata: \n\n"),
        ({"data": {"x": 1}, "id": 7, "event": "e", "retry": 10},
         'event: e\nid: 7\nretry: 10\ndata: {"x":1}\n\n'),
        ({"retry": 10}, "retry: 10\n\n"),
        ({"event": None, "data": "x"}, "data: x\n\n"),
        ({"id": 5}, 'data: {"id":5}\n\n'),
        ({"data": 1, "other": 2}, 'data: {"data":1,"other":2}\n\n'),
        ({}, "data: {}\n\n"),
    ],
)  # fmt: skip
def test_events(value: Any, sent: str) -> None:
    assert events.event(value).decode() == sent


def test_fields_cannot_hold_others() -> None:
    sent = events.event({"event": "a\ndata: forged", "id": "1\0\r\n2", "data": "x"})
    assert sent == b"event: a data: forged\nid: 1 2\ndata: x\n\n"


def read(sent: bytes) -> list[dict[str, Any]]:
    """What a browser makes of a stream, by the rules of the standard."""
    found: list[dict[str, Any]] = []
    fields: dict[str, Any] = {"data": []}
    for line in sent.decode().replace("\r\n", "\n").replace("\r", "\n").split("\n"):
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if not line:
            if fields["data"]:
                found.append({**fields, "data": "\n".join(fields["data"])})
            fields = {"data": []}
        elif name == "data":
            fields["data"].append(value)
        else:
            fields[name] = value
    return found


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.lists(JSON, max_size=4))
def test_whatever_is_yielded_arrives(values: list[Any]) -> None:
    plain = [v for v in values if not (isinstance(v, dict) and events._is_fields(v))]
    arrived = read(b"".join(map(events.event, plain)))
    assert len(arrived) == len(plain)
    for value, got in zip(plain, arrived, strict=True):
        if isinstance(value, str):
            assert got["data"] == value.replace("\r\n", "\n").replace("\r", "\n")
        else:
            assert json.loads(got["data"]) == value


@pytest.mark.parametrize(
    ("first", "kind", "sent"),
    [
        (b"a", "application/octet-stream", b"a"),
        ("ä", "text/plain; charset=utf-8", "ä".encode()),
        ({"a": 1}, "application/x-ndjson", b'{"a":1}\n'),
        (None, "application/x-ndjson", b"null\n"),
    ],
)
def test_the_first_value_decides_the_form(first: Any, kind: str, sent: bytes) -> None:
    form = events.form("*/*", first)
    assert form.headers == [("Content-Type", kind)]
    assert form.encode(first) == sent
    assert not form.failure


def test_mixed_values() -> None:
    lines, text = events.form("", {}), events.form("", "x")
    assert [lines.encode(v) for v in ("a", b"b", 1)] == [b'"a"\n', b"b", b"1\n"]
    assert [text.encode(v) for v in ("a", b"b", 1)] == [b"a", b"b", b"1\n"]


def test_what_has_no_json_is_an_error() -> None:
    for form in (events.form("", {}), events.form("text/event-stream", {})):
        with pytest.raises(TypeError):
            form.encode(object())


def test_the_failure_is_an_event_without_details() -> None:
    (told,) = read(events.form("text/event-stream", "x").failure)
    assert told["event"] == "error"
    assert "log" in json.loads(told["data"])["message"]

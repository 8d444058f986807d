from __future__ import annotations

import inspect
import json
from typing import Any

import pytest

from scoring.azureml import inputs
from scoring.azureml.loading import Kind, Script
from scoring.errors import MalformedPayloadError, UnknownInputError, UnsupportedMediaTypeError
from scoring.http import Request

JSON = "application/json"


def reader(kind: Kind, strict: bool = False) -> inputs.Reader:
    def run(data: Any, factor: Any = 2) -> None:
        pass

    parameters = tuple(inspect.signature(run).parameters.values())
    return inputs.reader(Script(run, run, kind, parameters, wants_headers=False), strict=strict)


def read(kind: Kind, body: bytes, content_type: str = JSON, strict: bool = False) -> Any:
    headers = [("content-type", content_type)]
    request = Request("POST", "/score", headers=headers, body=body)
    return reader(kind, strict)(request, content_type)


@pytest.mark.parametrize("content_type", ["", JSON, "text/plain", "multipart/form-data"])
def test_text_scripts_get_the_body_whatever_its_type(content_type: str) -> None:
    assert read("text", "süß".encode(), content_type) == {"data": "süß"}


def test_a_bare_curl_body_arrives_unless_strict() -> None:
    form = "application/x-www-form-urlencoded"
    assert read("text", b'{"data": 1}', form) == {"data": '{"data": 1}'}
    assert read("text", b'{"data": 1}', form, strict=True) == {"data": ""}


def test_bytes_that_are_no_text_are_refused_with_the_place() -> None:
    with pytest.raises(MalformedPayloadError, match="cannot be decoded as UTF-8") as caught:
        read("text", b"ab\xff")
    assert caught.value.where == "byte 2"


def test_queries_become_json_text() -> None:
    request = Request("GET", "/score", "a=1&b=[1,2]&c=x&c=2&d=&e=%FFz")
    text = reader("text")(request, "")["data"]
    assert json.loads(text) == {"a": 1, "b": [1, 2], "c": ["x", 2], "d": "", "e": "%FFz"}


def test_arguments_come_from_the_object_or_the_default() -> None:
    assert read("schema", b'{"data": [1], "other": 2}') == {"data": [1], "factor": 2}
    assert read("schema", b'{"data": 1, "factor": null}') == {"data": 1, "factor": None}
    query = Request("GET", "/score", "data=[1]&factor=x")
    assert reader("schema")(query, "") == {"data": [1], "factor": "x"}


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b"[NaN]", "[nan]"),
        (b"[123456789012345678901234567890]", "[123456789012345678901234567890]"),
        (b"[-9223372036854775809]", "[-9223372036854775809]"),
        (b'["\\ud800"]', "['\\ud800']"),
        (b"[0.1234567890123456789]", "[0.12345678901234568]"),
    ],
)
def test_numbers_and_text_are_read_as_pythons_json_reads_them(body: bytes, value: str) -> None:
    assert repr(read("schema", b'{"data": ' + body + b"}")["data"]) == value


def test_utf_16_and_a_byte_order_mark_are_read() -> None:
    for encoding in ("utf-16", "utf-8-sig"):
        assert read("schema", '{"data": "ü"}'.encode(encoding))["data"] == "ü"


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "is empty"),
        (b"{", "could not be decoded as JSON: Expecting property name"),
        (b'{"data": 1} x', "Extra data"),
        (b"[1]", "should be a JSON dictionary"),
        (b"null", "should be a JSON dictionary"),
    ],
)
def test_bodies_that_are_no_object_are_refused(body: bytes, message: str, strict: bool) -> None:
    with pytest.raises(MalformedPayloadError, match=message):
        read("schema", body, strict=strict)


@pytest.mark.parametrize("body", [b'{"data": "\xff"}', b"[" * 100_000])
def test_undecodable_and_too_deep_bodies_are_refused(body: bytes) -> None:
    with pytest.raises(MalformedPayloadError):
        read("schema", body)


def test_the_missing_argument_is_named() -> None:
    with pytest.raises(UnknownInputError, match="'data'") as caught:
        read("schema", b"{}")
    assert caught.value.where == "data"


@pytest.mark.parametrize("content_type", ["", "text/plain", "application/x-www-form-urlencoded"])
def test_objects_have_to_be_called_json(content_type: str) -> None:
    with pytest.raises(UnsupportedMediaTypeError):
        read("schema", b'{"data": 1}', content_type)


@pytest.mark.parametrize(
    "content_type", ["application/json; charset=utf-8", "Application/JSON", "application/a+json"]
)
def test_kin_of_json_are_taken(content_type: str) -> None:
    assert read("schema", b'{"data": 1}', content_type)["data"] == 1

"""Whatever is sent to a route of the protocol gets an answer that its OpenAPI document promises."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from serve.server.v2.openapi import document
from tests.support.server import Client, serve_model

if TYPE_CHECKING:
    from collections.abc import Iterator

DOCUMENT = document()
OPERATIONS = [
    (method, path)
    for path, item in DOCUMENT["paths"].items()
    for method in item
    if method in {"get", "post"}
]
GOOD = {"inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]}]}

models = st.sampled_from(["sums", "other", "%73ums", "s%00", "%ff", ".", "a%2Fb"])
versions = st.sampled_from(["1", "2", "x", "-1", "1" * 30, "%31"])
scalars = st.none() | st.booleans() | st.integers() | st.text(max_size=4)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)
keys = ["inputs", "outputs", "id", "parameters", "ready", "name", "shape", "datatype", "data"]
objects = st.dictionaries(st.sampled_from(keys), values, max_size=4)
bodies = st.one_of(
    st.just(json.dumps(GOOD).encode()),
    objects.map(lambda value: json.dumps({**GOOD, **value}).encode()),
    objects.map(lambda value: json.dumps({"inputs": [{**GOOD["inputs"][0], **value}]}).encode()),
    (values | objects).map(lambda value: json.dumps(value).encode()),
    st.binary(max_size=30),
)


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with serve_model() as live:
        yield live.port


def promised(operation: dict[str, Any], status: int) -> dict[str, Any]:
    """The schema of an answer, whole in itself."""
    assert str(status) in operation["responses"], f"{status} is not documented"
    answer = operation["responses"][str(status)]
    if "$ref" in answer:
        answer = DOCUMENT["components"]["responses"][answer["$ref"].rsplit("/", 1)[1]]
    schema: dict[str, Any] = answer["content"]["application/json"]["schema"]
    return {**schema, "components": DOCUMENT["components"]}


@pytest.mark.parametrize(("method", "path"), OPERATIONS, ids=lambda value: value)
@given(model=models, version=versions, body=bodies)
@settings(max_examples=30, deadline=None)
def test_every_answer_is_as_documented(
    port: int, method: str, path: str, model: str, version: str, body: bytes
) -> None:
    target = path.replace("{model}", model).replace("{version}", version)
    head = (
        f"{method.upper()} {target} HTTP/1.1\r\nHost: test\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    with Client(port) as client:
        client.send(head.encode() + body)
        answer = client.read()
    told = json.loads(answer.body)
    if answer.status == 404 and "There is no '/" in told.get("error", ""):
        return  # a name with a slash in it makes another path
    schema = promised(DOCUMENT["paths"][path][method], answer.status)
    Draft202012Validator(schema).validate(told)

"""The documents are valid, say what the server does, and their example is answered by it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from jsonschema import Draft4Validator, Draft202012Validator
from openapi_spec_validator import (
    OpenAPIV2SpecValidator,
    OpenAPIV30SpecValidator,
    OpenAPIV31SpecValidator,
)

from scoring.openapi import _LARGEST, VERSIONS, document
from scoring.payload import Codec
from scoring.schema import ModelSchema, TensorSpec
from tests.support.server import ANSWER, Client, get, post, serve_model

if TYPE_CHECKING:
    from collections.abc import Mapping

VALIDATORS = {
    "2": OpenAPIV2SpecValidator,
    "2.0": OpenAPIV2SpecValidator,
    "3": OpenAPIV30SpecValidator,
    "3.0": OpenAPIV30SpecValidator,
    "3.1": OpenAPIV31SpecValidator,
}
MATRIX = ModelSchema(
    (TensorSpec("x", "float32", (None, 3)),),
    (TensorSpec("label", "int64", (None,)), TensorSpec("p", "float32", (None, 2))),
    features=("a", "b", "c"),
    classes=("no", "yes"),
    example={"data": [[1.0, 2.0, 3.0]]},
)
TABLE = ModelSchema(
    (
        TensorSpec("age", "float64", (None, 1), missing=True),
        TensorSpec("city", "string", (None, 1), missing=True),
        TensorSpec("rooms", "uint8", (None, 1)),
        TensorSpec("new", "bool", (None, 1)),
    ),
    (TensorSpec("label", "string", (None,)), TensorSpec("p", "map", (None,))),
    layout="table",
    example={"data": [{"age": None, "city": "Ulm", "rooms": 2, "new": True}]},
)
SEVERAL = ModelSchema(
    (TensorSpec("ids", "int32", (None, 2)), TensorSpec("scale", "float16", ())),
    (TensorSpec("y", "float64", (None, None)),),
    example={"inputs": {"ids": [[1, 2]], "scale": 0.5}},
)
BARE = ModelSchema(
    (TensorSpec("x", "string", (None, 1, 2)),), (TensorSpec("predictions", "bool", (None,)),)
)
SCHEMAS = {"matrix": MATRIX, "table": TABLE, "several": SEVERAL, "bare": BARE}
OUTPUTS: dict[str, dict[str, Any]] = {
    "matrix": {"label": np.array([1]), "p": np.array([[0.1, np.nan]], np.float32)},
    "table": {"label": np.array(["a"], object), "p": [{"a": 0.5, "b": 0.5}]},
    "several": {"y": np.array([[1.0, np.inf]])},
    "bare": {"predictions": np.array([True])},
}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", SCHEMAS)
def test_documents_are_valid(name: str, version: str) -> None:
    page = document(SCHEMAS[name], version, name="a model")
    VALIDATORS[version](page).validate()
    json.dumps(page)


def definition(name: str, part: str) -> Mapping[str, Any]:
    """A definition of the 3.1 document, whose schemas are plain JSON schemas."""
    page = document(SCHEMAS[name], "3.1", name="a model")
    found = page["components"]["schemas"][part]
    assert isinstance(found, dict)
    Draft202012Validator.check_schema(found)
    return found


@pytest.mark.parametrize("name", ["matrix", "table", "several"])
def test_the_example_fits_the_schema_and_the_model(name: str) -> None:
    schema = SCHEMAS[name]
    Draft202012Validator(definition(name, "ServiceInput")).validate(schema.example)
    Codec(schema).decode(json.dumps(schema.example).encode())
    for version in VERSIONS:
        page = document(schema, version, name="x")
        parts = page.get("definitions") or page["components"]["schemas"]
        assert schema.example in (
            parts["ServiceInput"].get("example"),
            *parts["ServiceInput"].get("examples", ()),
        )


def test_the_example_fits_swagger_2() -> None:
    page = document(SEVERAL, "2", name="x")
    Draft4Validator(page["definitions"]["ServiceInput"]).validate(SEVERAL.example)


@pytest.mark.parametrize("style", ["predictions", "outputs"])
@pytest.mark.parametrize("name", SCHEMAS)
def test_answers_fit_the_schema(name: str, style: Any) -> None:
    answer = json.loads(Codec(SCHEMAS[name]).encode(OUTPUTS[name], style))
    Draft202012Validator(definition(name, "ServiceOutput")).validate(answer)


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("matrix", {"data": [[1, 2]]}),
        ("matrix", {"data": [[1, 2, "3"]]}),
        ("matrix", {"data": [[1, 2, 1e39]]}),
        ("matrix", {"data": []}),
        ("table", {"data": [{"age": 1}]}),
        ("table", {"data": [{"age": 1, "city": "a", "rooms": 256, "new": True}]}),
        ("several", {"inputs": {"ids": [[1.5, 2]], "scale": 1}}),
        ("several", {"data": [[1, 2]]}),
    ],
)
def test_what_the_model_refuses_does_not_fit_the_schema(name: str, body: object) -> None:
    assert not Draft202012Validator(definition(name, "ServiceInput")).is_valid(body)


def test_the_live_server_answers_its_own_example_as_it_says() -> None:
    with serve_model() as live, Client(live.port) as client:
        client.send(get("/swagger.json?version=3.1"))
        page = json.loads(client.read().body)
        parts = page["components"]["schemas"]
        body = json.dumps(parts["ServiceInput"]["examples"][0]).encode()
        client.send(post(body))
        answer = client.read()
        assert (answer.status, json.loads(answer.body)) == (200, ANSWER)
        Draft202012Validator(parts["ServiceOutput"]).validate(ANSWER)
        client.send(post(b'{"data": [[1]]}'))
        refused = client.read()
        responses = page["paths"]["/score"]["post"]["responses"]
        assert str(refused.status) in responses
        Draft202012Validator(parts["ErrorResponse"]).validate(json.loads(refused.body))


def test_every_documented_path_is_answered() -> None:
    with serve_model() as live, Client(live.port) as client:
        paths = document(MATRIX, "3", name="x")["paths"]
        for path, operations in paths.items():
            for method in operations:
                client.send(get(path, "Content-Length: 0", method=method.upper()))
                assert client.read().status not in {404, 405}


@pytest.mark.parametrize("version", ["3", "3.1"])
def test_the_example_stands_beside_the_body_too(version: str) -> None:
    operation = document(MATRIX, version, name="m")["paths"]["/score"]["post"]
    content = operation["requestBody"]["content"]["application/json"]
    assert content["example"] == MATRIX.example


@pytest.mark.parametrize("version", VERSIONS)
def test_columns_that_are_not_used_are_not_required(version: str) -> None:
    partly = ModelSchema(
        (
            TensorSpec("age", "float64", (None, 1)),
            TensorSpec("id", "string", (None, 1), missing=True, unused=True),
        ),
        MATRIX.outputs,
        layout="table",
    )
    made = document(partly, version, name="m")
    VALIDATORS[version](made).validate()
    definitions = made.get("definitions") or made["components"]["schemas"]
    form = definitions["ServiceInput"]
    record = (form["anyOf"][0] if "anyOf" in form else form)["properties"]["data"]["items"]
    assert record["required"] == ["age"]
    assert "type" not in record["properties"]["id"]


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_the_largest_numbers_are_within_the_limits_as_they_are_written(dtype: str) -> None:
    largest = float(str(np.finfo(dtype).max))
    assert largest <= _LARGEST[dtype]
    assert np.isfinite(np.dtype(dtype).type(_LARGEST[dtype]))

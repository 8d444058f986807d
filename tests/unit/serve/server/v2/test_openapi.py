"""The description of the routes, against itself and a live server."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest
from openapi_spec_validator import validate

from serve.server.access.keychain import Keychain
from serve.server.v2.openapi import document
from tests.support.server import LiveServer, serve_model

REFERENCE = Path(__file__).parents[5] / "docs" / "reference"
DOCUMENT = document()
TENSOR = {"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]}
GOOD = {"inputs": [TENSOR], "id": "a", "outputs": [{"name": "total"}]}


@pytest.fixture(scope="module")
def server() -> Iterator[LiveServer]:
    with serve_model() as live:
        yield live


@pytest.fixture(scope="module")
def http(server: LiveServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"http://127.0.0.1:{server.port}") as client:
        yield client


def _resolved(part: Any) -> Any:
    while "$ref" in part:
        found: Any = DOCUMENT
        for step in part["$ref"].removeprefix("#/").split("/"):
            found = found[step]
        part = found
    return part


def _check(method: str, path: str, answer: httpx.Response) -> None:
    """Holds an answer against what its operation promises."""
    operation = DOCUMENT["paths"][path][method]
    assert str(answer.status_code) in operation["responses"], (path, answer.text)
    promised = _resolved(operation["responses"][str(answer.status_code)])
    kind = answer.headers["content-type"]
    schema = {**promised["content"][kind]["schema"], "components": DOCUMENT["components"]}
    if kind == "application/json":
        jsonschema.validate(answer.json(), schema, jsonschema.Draft202012Validator)


def test_it_is_openapi() -> None:
    validate(DOCUMENT)


def test_the_file_is_this_document() -> None:
    path = REFERENCE / "make_v2_openapi.py"
    spec = importlib.util.spec_from_file_location("make_v2_openapi", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert (REFERENCE / "v2-openapi.json").read_text("utf-8") == module.page()


def test_it_is_served(http: httpx.Client) -> None:
    answer = http.get("/v2/openapi.json")
    assert answer.json() == json.loads(json.dumps(DOCUMENT))


@pytest.mark.parametrize("model", ["sums", "unknown"])
@pytest.mark.parametrize("version", ["1", "9"])
@pytest.mark.parametrize("path", list(DOCUMENT["paths"]))
def test_every_operation_answers_as_described(
    server: LiveServer, http: httpx.Client, path: str, model: str, version: str
) -> None:
    url = path.format(model=model, version=version)
    known = model == "sums" and version == "1"
    for method in DOCUMENT["paths"][path].keys() - {"parameters"}:
        body = GOOD if path.endswith("/infer") else {}
        content = json.dumps(body).encode() if method == "post" else None
        answer = http.request(method, url, content=content)
        _check(method, path, answer)
        if known or "{" not in path:
            assert answer.status_code == (503 if _unloaded(path, server) else 200)
    if path.endswith("/unload"):
        http.post(url.replace("/unload", "/load"))


def _unloaded(path: str, server: LiveServer) -> bool:
    return "{model}" in path and "repository" not in path and not server.repository.models()


def test_refusals_of_a_guarded_server_are_described(tmp_path: Path) -> None:
    keys = tmp_path / "keys.json"
    chain = Keychain(keys)
    _, known = chain.create("ci")
    _, elsewhere = chain.create("partner", models=["other"])
    with (
        serve_model(api_keys=str(keys), rate_limit=0.001, rate_burst=1) as live,
        httpx.Client(base_url=f"http://127.0.0.1:{live.port}") as http,
    ):
        path = "/v2/models/{model}/infer"
        for secret, status in (("", 401), (elsewhere, 403), (known, 200), (known, 429)):
            headers = {"x-api-key": secret} if secret else {}
            answer = http.post(path.format(model="sums"), json=GOOD, headers=headers)
            assert answer.status_code == status
            _check("post", path, answer)


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
@pytest.mark.parametrize("path", list(DOCUMENT["paths"]))
def test_methods_that_are_not_described_are_405(http: httpx.Client, path: str, method: str) -> None:
    described = {name.upper() for name in DOCUMENT["paths"][path]}
    if method in described:
        return
    answer = http.request(method, path.format(model="sums", version="1"))
    assert answer.status_code == 405
    assert set(answer.headers["allow"].split(", ")) == described - {"PARAMETERS"}


@pytest.mark.parametrize(
    "request_body",
    [
        {},
        {"inputs": []},
        {"inputs": 1},
        {**GOOD, "id": 1},
        {**GOOD, "parameters": 1},
        {**GOOD, "parameters": {"binary_data_output": "yes"}},
        {**GOOD, "outputs": [1]},
        {"inputs": [{**TENSOR, "shape": "x"}]},
        {"inputs": [{**TENSOR, "datatype": "FP16"}]},
        {"inputs": [{**TENSOR, "parameters": {"shared_memory_region": "a"}}]},
    ],
)
def test_what_the_schema_refuses_the_server_refuses(http: httpx.Client, request_body: Any) -> None:
    schema = {"$ref": "#/components/schemas/InferRequest", "components": DOCUMENT["components"]}
    jsonschema.validate(GOOD, schema, jsonschema.Draft202012Validator)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(request_body, schema, jsonschema.Draft202012Validator)
    answer = http.post("/v2/models/sums/infer", json=request_body)
    assert answer.status_code == 400
    _check("post", "/v2/models/{model}/infer", answer)

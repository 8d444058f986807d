"""The OpenAPI 3.1 description of the protocol's routes as they are served here. Pure.

`docs/reference/v2-openapi.json` is this document in a file.
"""

from __future__ import annotations

from typing import Any

from scoring import __version__
from serve.server.v2.datatypes import BF16, BINARY_ONLY, BY_SCHEMA

_Schema = dict[str, Any]

_DATATYPES = list(dict.fromkeys([*BY_SCHEMA.values(), BF16]))
_JSON_DATATYPES = [name for name in _DATATYPES if name not in BINARY_ONLY]
_PARAMETERS: _Schema = {
    "type": ["object", "null"],
    "description": "What is not known here changes nothing.",
    "not": {"required": ["shared_memory_region"]},
}
_MODEL = "/v2/models/{model}"
_VERSION = "/v2/models/{model}/versions/{version}"
_GUARDED = {"401": "Unauthorized", "403": "Forbidden", "429": "TooMany"}
"""Of servers that ask who asks, or how often."""


def document() -> dict[str, Any]:
    """The description."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Open Inference Protocol",
            "version": __version__,
            "description": "Version 2 of the protocol over REST, with the extensions for binary "
            "tensors, classification, the model repository, its configuration and statistics.",
        },
        "paths": _paths(),
        "components": {
            "schemas": _schemas(),
            "parameters": {
                "model": _path_parameter("model", "The model's name."),
                "version": _path_parameter("version", "One of the model's versions."),
                "jsonLength": {
                    "name": "Inference-Header-Content-Length",
                    "in": "header",
                    "description": "How long the JSON is before the bytes of binary tensors.",
                    "schema": {"type": "integer", "minimum": 0, "maximum": 10**18 - 1},
                },
                "timeout": {
                    "name": "timeout-ms",
                    "in": "header",
                    "description": "The answer is of no use after so many milliseconds.",
                    "schema": {"type": "integer", "minimum": 1, "maximum": 10**9 - 1},
                },
            },
            "responses": _responses(),
        },
    }


def _paths() -> dict[str, Any]:
    paths: dict[str, Any] = {
        "/v2": {"get": _get("serverMetadata", "The server.", "ServerMetadata")},
        "/v2/health/live": {"get": _get("serverLive", "Whether the server runs.", "Live")},
        "/v2/health/ready": {
            "get": _get(
                "serverReady",
                "Whether the server takes requests.",
                "Ready",
                {"503": _json("It takes none now.", "Ready")},
            )
        },
        "/v2/models": {"get": _get("models", "The names of the loaded models.", "ModelList")},
        "/v2/models/stats": {
            "get": _get("statistics", "What all loaded models have done.", "Statistics")
        },
        "/v2/repository/index": {"post": _index()},
    }
    for prefix, suffix in ((_MODEL, ""), (_VERSION, "Version")):
        paths |= _model_paths(prefix, suffix)
    for control in ("load", "unload"):
        path = f"/v2/repository/models/{{model}}/{control}"
        paths[path] = {"parameters": [_ref("parameters", "model")], "post": _control(control)}
    for path, item in paths.items():
        if not path.startswith("/v2/health/"):  # which everyone may ask, as often as they like
            for operation in (item.get("get"), item.get("post")):
                if operation is not None:
                    operation["responses"] |= {
                        status: _ref("responses", name) for status, name in _GUARDED.items()
                    }
    return paths


def _model_paths(prefix: str, suffix: str) -> dict[str, Any]:
    names = ["model", "version"] if suffix else ["model"]
    parameters = [_ref("parameters", name) for name in names]
    pages = {
        "": ("modelMetadata", "A model's inputs and outputs.", "ModelMetadata"),
        "/config": ("modelConfig", "A model's configuration, as Triton tells it.", "ModelConfig"),
        "/stats": ("modelStatistics", "What a model has done.", "Statistics"),
    }
    paths: dict[str, Any] = {
        prefix + path: {
            "parameters": parameters,
            "get": _get(name + suffix, summary, schema, _unknown_model()),
        }
        for path, (name, summary, schema) in pages.items()
    }
    more = {
        "404": _ref("responses", "NotFound"),
        "503": _json("It is known and not loaded.", "ModelReady"),
    }
    ready = _get(f"modelReady{suffix}", "Whether a model answers.", "ModelReady", more)
    paths[f"{prefix}/ready"] = {"parameters": parameters, "get": ready}
    paths[f"{prefix}/infer"] = {"parameters": parameters, "post": _infer(suffix)}
    return paths


def _infer(suffix: str) -> dict[str, Any]:
    content = {
        "application/json": {"schema": _schema("InferRequest")},
        "application/octet-stream": {
            "schema": {
                "type": "string",
                "format": "binary",
                "description": "The JSON, and behind it the bytes of the binary tensors.",
            }
        },
    }
    answers = {
        "application/json": {"schema": _schema("InferResponse")},
        "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
    }
    return {
        "operationId": f"infer{suffix}",
        "summary": "Answers with a model.",
        "parameters": [_ref("parameters", "jsonLength"), _ref("parameters", "timeout")],
        "requestBody": {"required": True, "content": content},
        "responses": {
            "200": {
                "description": "The outputs.",
                "headers": {
                    "Inference-Header-Content-Length": {
                        "description": "How long the JSON is, where binary tensors follow.",
                        "schema": {"type": "integer"},
                    }
                },
                "content": answers,
            },
            "400": _ref("responses", "BadRequest"),
            "404": _ref("responses", "NotFound"),
            "413": _ref("responses", "TooLarge"),
            "415": _ref("responses", "UnknownCoding"),
            "500": _ref("responses", "Failed"),
            "503": _ref("responses", "Unavailable"),
            "504": _ref("responses", "Late"),
        },
    }


def _index() -> dict[str, Any]:
    schema = {"type": "object", "properties": {"ready": {"type": "boolean"}}}
    return {
        "operationId": "repositoryIndex",
        "summary": "All models, loaded or not.",
        "requestBody": {"content": {"application/json": {"schema": schema}}},
        "responses": {
            "200": _json("The models.", "RepositoryIndex"),
            "400": _ref("responses", "BadRequest"),
        },
    }


def _control(control: str) -> dict[str, Any]:
    allowed: _Schema = {"type": ["object", "null"], "maxProperties": 0}
    if control == "unload":
        flag = {"unload_dependents": {"type": "boolean"}}
        allowed = {"type": ["object", "null"], "properties": flag, "additionalProperties": False}
    schema = {"type": "object", "properties": {"parameters": allowed}}
    return {
        "operationId": f"repository{control.capitalize()}",
        "summary": f"{control.capitalize()}s a model.",
        "requestBody": {"content": {"application/json": {"schema": schema}}},
        "responses": {
            "200": _json("Done.", "Controlled"),
            "400": _ref("responses", "BadRequest"),
            "404": _ref("responses", "NotFound"),
            "500": _ref("responses", "Failed"),
            "503": _ref("responses", "Unavailable"),
        },
    }


def _schemas() -> dict[str, _Schema]:
    text: _Schema = {"type": "string"}
    sizes: _Schema = {"type": "array", "items": {"type": "integer", "minimum": -1}}
    return {
        "Error": _object({"error": text}),
        "Live": _object({"live": {"type": "boolean"}}),
        "Ready": _object({"ready": {"type": "boolean"}}),
        "ServerMetadata": _object(
            {"name": text, "version": text, "extensions": {"type": "array", "items": text}}
        ),
        "ModelList": _object({"models": {"type": "array", "items": text}}),
        "ModelReady": _object({"name": text, "ready": {"type": "boolean"}}, {"error": text}),
        "TensorMetadata": _object(
            {"name": text, "datatype": {"enum": _DATATYPES}, "shape": sizes},
            {"parameters": {"type": "object"}},
        ),
        "ModelMetadata": _object(
            {
                "name": text,
                "versions": {"type": "array", "items": text},
                "platform": text,
                "inputs": {"type": "array", "items": _schema("TensorMetadata")},
                "outputs": {"type": "array", "items": _schema("TensorMetadata")},
            },
            {"parameters": {"type": "object", "additionalProperties": text}},
        ),
        "ModelConfig": _object(
            {
                "name": text,
                "platform": text,
                "backend": text,
                "max_batch_size": {"type": "integer", "minimum": 0},
                "input": {"type": "array", "items": {"type": "object"}},
                "output": {"type": "array", "items": {"type": "object"}},
            }
        ),
        "Controlled": {"type": "object", "required": ["name"], "properties": {"name": text}},
        "RepositoryIndex": {
            "type": "array",
            "items": _object(
                {
                    "name": text,
                    "version": text,
                    "state": {"enum": ["READY", "UNAVAILABLE", "LOADING", "UNLOADING"]},
                    "reason": text,
                }
            ),
        },
        **_statistics_schemas(),
        **_infer_schemas(),
    }


def _statistics_schemas() -> dict[str, _Schema]:
    count: _Schema = {"type": "integer", "minimum": 0}
    parts = (
        *("success", "fail", "queue", "compute_input", "compute_infer", "compute_output"),
        *("cache_hit", "cache_miss"),
    )
    batch = _object({"batch_size": count, "compute_infer": _schema("Duration")})
    model = _object(
        {
            "name": {"type": "string"},
            "version": {"type": "string"},
            "last_inference": count,
            "inference_count": count,
            "execution_count": count,
            "inference_stats": _object({part: _schema("Duration") for part in parts}),
            "batch_stats": {"type": "array", "items": batch},
        }
    )
    return {
        "Duration": _object({"count": count, "ns": count}),
        "Statistics": _object({"model_stats": {"type": "array", "items": model}}),
    }


def _infer_schemas() -> dict[str, _Schema]:
    text: _Schema = {"type": "string"}
    size: _Schema = {"type": "integer", "minimum": 1}
    data: _Schema = {"type": "array", "minItems": 1}
    return {
        "RequestInput": _object(
            {
                "name": text,
                "shape": {"type": "array", "items": size},
                "datatype": {"enum": _JSON_DATATYPES},
                "data": data | {"description": "Nested like the shape, or in one list."},
            },
            {"parameters": _PARAMETERS},
        ),
        "RequestOutput": _object({"name": text}, {"parameters": _output_parameters()}),
        "InferRequest": _object(
            {"inputs": {"type": "array", "minItems": 1, "items": _schema("RequestInput")}},
            {
                "id": {"type": ["string", "null"]},
                "parameters": _PARAMETERS
                | {"properties": {"binary_data_output": {"type": ["boolean", "null"]}}},
                "outputs": {"type": ["array", "null"], "items": _schema("RequestOutput")},
            },
        ),
        "ResponseOutput": _object(
            {
                "name": text,
                "shape": {"type": "array", "items": {"type": "integer", "minimum": 0}},
                "datatype": {"enum": _DATATYPES},
            },
            {"data": {"type": "array"}, "parameters": {"type": "object"}},
        ),
        "InferResponse": _object(
            {
                "model_name": text,
                "model_version": text,
                "outputs": {"type": "array", "items": _schema("ResponseOutput")},
            },
            {"id": text},
        ),
    }


def _output_parameters() -> _Schema:
    known = {
        "binary_data": {"type": ["boolean", "null"]},
        "classification": {"type": ["integer", "null"], "minimum": 0},
    }
    return _PARAMETERS | {"properties": known}


def _responses() -> dict[str, Any]:
    sentences = {
        "BadRequest": "What the sender has to change, and where.",
        "NotFound": "The server has no such model or version.",
        "Unauthorized": "The request says not, or not rightly, who asks.",
        "Forbidden": "Who asks may not do this, or not with this model.",
        "TooMany": "Who asks does so too often; retry-after says when to come back.",
        "TooLarge": "The body is over the limit.",
        "UnknownCoding": "The body has a content encoding that the server does not know.",
        "Failed": "The model failed, or the server did.",
        "Unavailable": "The model is not loaded, or too many requests are waiting.",
        "Late": "The deadline passed before the model began.",
    }
    return {name: _json(sentence, "Error") for name, sentence in sentences.items()}


def _get(
    name: str, summary: str, schema: str, more: dict[str, Any] | None = None
) -> dict[str, Any]:
    responses = {"200": _json(summary, schema), **(more or {})}
    return {"operationId": name, "summary": summary, "responses": responses}


def _unknown_model() -> dict[str, Any]:
    return {"404": _ref("responses", "NotFound"), "503": _ref("responses", "Unavailable")}


def _path_parameter(name: str, description: str) -> dict[str, Any]:
    return {
        "name": name,
        "in": "path",
        "required": True,
        "description": description,
        "schema": {"type": "string", "minLength": 1},
    }


def _object(required: dict[str, Any], optional: dict[str, Any] | None = None) -> _Schema:
    return {
        "type": "object",
        "required": list(required),
        "properties": {**required, **(optional or {})},
    }


def _json(description: str, schema: str) -> dict[str, Any]:
    return {
        "description": description,
        "content": {"application/json": {"schema": _schema(schema)}},
    }


def _schema(name: str) -> _Schema:
    return _ref("schemas", name)


def _ref(kind: str, name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/{kind}/{name}"}

"""OpenAPI and Swagger documents of a scoring server, made from the model's schema. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from scoring.payload.answers import answer_keys

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scoring.schema import ModelSchema, TensorSpec

VERSIONS = ("2", "2.0", "3", "3.0", "3.1")
"""The versions of Azure ML's route; 3 is 3.0.3."""

Json = dict[str, Any]

_LIMITS = {
    "int8": (-(2**7), 2**7 - 1),
    "int16": (-(2**15), 2**15 - 1),
    "int32": (-(2**31), 2**31 - 1),
    "int64": (-(2**63), 2**63 - 1),
    "uint8": (0, 2**8 - 1),
    "uint16": (0, 2**16 - 1),
    "uint32": (0, 2**32 - 1),
    "uint64": (0, 2**64 - 1),
}
# As answers write them, in the fewest digits, which is a little beyond the largest float32.
_LARGEST = {"float16": 65504.0, "float32": 3.4028235e38}
_FORMATS = {"float32": "float", "float64": "double", "int32": "int32", "int64": "int64"}
_ERRORS = {
    "400": "The input does not fit the model; the answer says where.",
    "413": "The body is over the server's limit.",
    "415": "The body is not JSON.",
    "500": "The model failed.",
    "503": "The server has no room for the request now.",
}
_HEALTH = {
    "/": ("healthy", "Whether the server answers", "text/plain"),
    "/health/live": ("live", "Whether the process lives", "application/json"),
    "/health/ready": ("ready", "Whether it takes requests", "application/json"),
    "/health/startup": ("startup", "Whether it has started", "application/json"),
}


def document(schema: ModelSchema, version: str, *, name: str, release: str = "1") -> Json:
    """The document in one of `VERSIONS`.

    Args:
        schema: Of the model that serves.
        version: A member of `VERSIONS`.
        name: The title.
        release: The version of the model.
    """
    dialect = _Dialect(version)
    info = {
        "title": name,
        "version": release,
        "description": "Scores rows with the model and answers its outputs by name.",
    }
    definitions = {
        "ServiceInput": _request(schema, dialect),
        "ServiceOutput": _answer(schema, dialect),
        "ErrorResponse": _error(),
    }
    if dialect.old:
        return {
            "swagger": "2.0",
            "info": info,
            "consumes": ["application/json"],
            "produces": ["application/json"],
            "paths": _paths(dialect, schema.example),
            "definitions": definitions,
        }
    return {
        "openapi": dialect.number,
        "info": info,
        "paths": _paths(dialect, schema.example),
        "components": {"schemas": definitions},
    }


class _Dialect:
    """What differs between Swagger 2, OpenAPI 3.0 and 3.1."""

    def __init__(self, version: str) -> None:
        self.old = version in {"2", "2.0"}
        self.number = "3.1.0" if version == "3.1" else "3.0.3"
        self._types = version == "3.1"

    def nullable(self, schema: Json) -> Json:
        """The schema of a value that may be null."""
        if self._types:
            return {**schema, "type": [schema["type"], "null"]}
        return {**schema, ("x-nullable" if self.old else "nullable"): True}

    def either(self, schemas: list[Json], description: str) -> Json:
        """One of several forms; Swagger 2 knows only the first."""
        if self.old:
            return {**schemas[0], "description": description}
        return {"anyOf": schemas, "description": description}

    def example(self, schema: Json, value: object) -> Json:
        """The schema with an example."""
        return {**schema, "examples": [value]} if self._types else {**schema, "example": value}

    def reference(self, name: str) -> Json:
        """A reference to a definition."""
        return {"$ref": f"#/{'definitions' if self.old else 'components/schemas'}/{name}"}

    def content(self, description: str, schema: Json, kind: str = "application/json") -> Json:
        """A response with a body."""
        if self.old:
            return {"description": description, "schema": schema}
        return {"description": description, "content": {kind: {"schema": schema}}}


def _paths(dialect: _Dialect, example: Json | None) -> Json:
    health = {path: {"get": _health(dialect, *about)} for path, about in _HEALTH.items()}
    return {**health, "/score": {"post": _score(dialect, example)}}


def _health(dialect: _Dialect, name: str, summary: str, kind: str) -> Json:
    text = kind == "text/plain"
    schema: Json = {"type": "string"} if text else {"type": "object"}
    operation: Json = {
        "operationId": name,
        "summary": summary,
        "responses": {"200": dialect.content("Yes.", schema, kind)},
    }
    if name == "ready":
        operation["responses"]["503"] = dialect.content("Not now.", schema, kind)
    return {**operation, "produces": [kind]} if dialect.old else operation


def _score(dialect: _Dialect, example: Json | None) -> Json:
    body = dialect.reference("ServiceInput")
    operation: Json = {
        "operationId": "score",
        "summary": "Score rows with the model",
        "responses": {
            "200": dialect.content("The outputs.", dialect.reference("ServiceOutput")),
            **{
                status: dialect.content(text, dialect.reference("ErrorResponse"))
                for status, text in _ERRORS.items()
            },
        },
    }
    if dialect.old:
        operation["parameters"] = [
            {"name": "payload", "in": "body", "required": True, "schema": body}
        ]
    else:
        operation["requestBody"] = {
            "required": True,
            "content": {
                "application/json": {"schema": body}
                if example is None
                else {"schema": body, "example": example}
            },
        }
    return operation


def _request(schema: ModelSchema, dialect: _Dialect) -> Json:
    """What `POST /score` takes: rows, or inputs by name."""
    named = _object({"inputs": _columns(schema, _inputs(schema, dialect))})
    rows = _rows(schema, dialect)
    forms = [named] if rows is None else [_object({"data": rows}), named]
    if schema.example is not None and "data" not in schema.example:
        forms.reverse()
    text = "Rows, or the inputs by name. Records and pandas' split form are taken, too."
    request = dialect.either(forms, text)
    return request if schema.example is None else dialect.example(request, schema.example)


def _rows(schema: ModelSchema, dialect: _Dialect) -> Json | None:
    """The rows of a model with one input or a table; None for several tensors."""
    if schema.layout == "table":
        return _list(_columns(schema, {s.name: _element(s, dialect) for s in schema.inputs}))
    if len(schema.inputs) > 1:
        return None
    rows = _tensor(schema.inputs[0], dialect)
    if schema.features:
        rows["description"] = "Columns: " + ", ".join(schema.features)
    return rows


def _columns(schema: ModelSchema, properties: Json) -> Json:
    """An object with a property for each input; those that the model drops may be absent."""
    required = [spec.name for spec in schema.inputs if not spec.unused]
    return {"type": "object", "properties": properties, "required": required}


def _inputs(schema: ModelSchema, dialect: _Dialect) -> Json:
    if schema.layout == "table":
        return {spec.name: _list(_element(spec, dialect)) for spec in schema.inputs}
    return {spec.name: _tensor(spec, dialect) for spec in schema.inputs}


def _answer(schema: ModelSchema, dialect: _Dialect) -> Json:
    specs = {spec.name: _output(spec, dialect) for spec in schema.outputs}
    named = {key: specs[name] for key, name in answer_keys(schema)}
    forms = [_object(named), _object({"outputs": _object(specs)})]
    if schema.example is not None and "inputs" in schema.example:
        forms.reverse()
    answer = dialect.either(forms, "`predictions` for rows, `outputs` for inputs by name.")
    if schema.classes:
        answer["description"] += f" Classes: {', '.join(str(label) for label in schema.classes)}."
    return answer


def _output(spec: TensorSpec, dialect: _Dialect) -> Json:
    if spec.dtype == "map":
        return _list({"type": "object", "additionalProperties": {"type": "number"}})
    # NaN and infinity, which JSON does not have, are answered as null.
    element = _element(spec, dialect)
    if spec.dtype.startswith("float") and not spec.missing:
        element = dialect.nullable(element)
    return _nest(element, spec.shape, batch=False)


def _tensor(spec: TensorSpec, dialect: _Dialect) -> Json:
    return _nest(_element(spec, dialect), spec.shape, batch=True)


def _nest(element: Json, shape: Sequence[int | None], *, batch: bool) -> Json:
    nested = element
    for size in reversed(shape):
        nested = _list(nested)
        if size is not None:
            nested |= {"minItems": size, "maxItems": size}
        elif not batch:
            del nested["minItems"]
    return nested


def _element(spec: TensorSpec, dialect: _Dialect) -> Json:
    schema: Json
    if spec.unused:
        return {"description": "Not used by the model; may be anything, or left out."}
    if spec.dtype in _LIMITS:
        low, high = _LIMITS[spec.dtype]
        schema = {"type": "integer", "minimum": low, "maximum": high}
    elif spec.dtype.startswith("float"):
        schema = {"type": "number"}
        if (largest := _LARGEST.get(spec.dtype)) is not None:
            schema |= {"minimum": -largest, "maximum": largest}
    else:
        schema = {"type": "boolean" if spec.dtype == "bool" else "string"}
    if spec.dtype in _FORMATS:
        schema["format"] = _FORMATS[spec.dtype]
    return dialect.nullable(schema) if spec.missing else schema


def _error() -> Json:
    texts = {name: {"type": "string"} for name in ("code", "message", "where", "hint")}
    error: Json = {
        "type": "object",
        "properties": {**texts, "retryable": {"type": "boolean"}},
        "required": ["code", "message"],
    }
    return _object({"error": error})


def _object(properties: Json) -> Json:
    return {"type": "object", "properties": properties, "required": list(properties)}


def _list(items: Json) -> Json:
    return {"type": "array", "items": items, "minItems": 1}

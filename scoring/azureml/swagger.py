"""The OpenAPI documents of a script: 2.0, 3.0.3 and 3.1.0, or the user's own files."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scoring.errors import EntryScriptError

if TYPE_CHECKING:
    from collections.abc import Callable

    from scoring.azureml.settings import ScriptSettings

Document = dict[str, Any]

_ALIASES = {"2": "2", "2.0": "2", "3": "3", "3.0": "3", "3.1": "3.1"}
_SCHEMA_VERSIONS = {"2": "2.0", "3": "3.0", "3.1": "3.1"}
_USER_FILES = {
    "2": ("swagger.json", "swagger2.json"),
    "3": ("swagger3.json",),
    "3.1": ("swagger3.1.json",),
}
_HEALTHY = "If service is up and running, this response will be returned with the content 'Healthy'"
_SCORED = (
    "The service processed the input correctly and provided a result prediction, if applicable."
)
_FAILED = "The service failed to execute due to an error."

logger = logging.getLogger("azmlinfsrv.swagger")


class UnknownVersionError(Exception):
    """There is no document of that version; the message says which there are."""


class Swagger:
    """The documents of one script, made once, after its `init()`.

    Args:
        run: The script's `run`, as declared.
        settings: Names, and the folder that may hold the user's own documents.

    Raises:
        EntryScriptError: A document of the user's is not JSON.
    """

    def __init__(self, run: Callable[..., Any], settings: ScriptSettings) -> None:
        made = {version: _document(version, run, settings) for version in _SCHEMA_VERSIONS}
        self._documents = {version: d for version, d in made.items() if d is not None}
        versions = ", ".join(self._documents)
        logger.info("Swaggers are prepared for the following versions: [%s].", versions)

    def document(self, version: str) -> Document:
        """The document of a version such as `2`, `3.0` or `3.1`.

        Raises:
            UnknownVersionError: There is no such version, or the script's schemas do not fit it.
        """
        names = ", ".join(sorted(self._documents))
        known = _ALIASES.get(version)
        if known is None:
            raise UnknownVersionError(
                f"Swagger version [{version}] is not valid. Supported versions: [{names}]."
            )
        if known not in self._documents:
            raise UnknownVersionError(
                f"Swagger version [{version}] is not supported for the scoring script. "
                f"Supported swagger versions: [{names}]."
            )
        return self._documents[known]


def _document(version: str, run: Callable[..., Any], settings: ScriptSettings) -> Document | None:
    for name in _USER_FILES[version]:
        own = _read(Path(settings.app_root) / name)
        if own:
            return own
    schemas = _schemas(run, version)
    if schemas is None:
        return None
    return (
        _swagger_2(settings, *schemas) if version == "2" else _openapi(version, settings, *schemas)
    )


def _read(path: Path) -> Document | None:
    try:
        document: Document = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise EntryScriptError(
            f"The OpenAPI document {path} cannot be read: {error}.",
            hint="Mend the file, or remove it to have one made from the script's schemas.",
            where=str(path),
        ) from error
    logger.info("Loaded user's swagger file from %s", path)
    return document


def _schemas(run: Callable[..., Any], version: str) -> tuple[Document, Document] | None:
    """Input and output schema; None where they cannot be written in that version."""
    util = sys.modules.get("inference_schema.schema_util")
    if util is None or not util.is_schema_decorated(run):
        anything: Document = {"type": "object", "example": {}}
        return anything, anything
    if _SCHEMA_VERSIONS[version] not in util.get_supported_versions(run):
        return None
    return util.get_input_schema(run), util.get_output_schema(run)


def _prefix(settings: ScriptSettings) -> str:
    prefix = settings.service_path_prefix
    return f"/{prefix.strip('/')}" if prefix else ""


def _info(settings: ScriptSettings) -> Document:
    name = settings.service_name
    return {
        "title": name,
        "description": f"API specification for the Azure Machine Learning service {name}",
        "version": settings.service_version,
    }


_BEARER = {
    "Bearer": {
        "type": "apiKey",
        "name": "Authorization",
        "in": "header",
        "description": "For example: Bearer abc123",
    }
}
_ERROR = {"type": "object", "properties": {"message": {"type": "string"}}}


def _paths(prefix: str, health: Document, score: Document, swagger: Document) -> Document:
    """The three routes; the arguments are what differs between the versions."""
    return {
        f"{prefix}/": {
            "get": {
                "operationId": "ServiceHealthCheck",
                "description": (
                    "Simple health check endpoint to ensure the service is up at any given point."
                ),
                **health,
            }
        },
        f"{prefix}/score": {
            "post": {
                "operationId": "RunMLService",
                "description": "Run web service's model and get the prediction output",
                "security": [{"Bearer": []}],
                **score,
            }
        },
        f"{prefix}/swagger.json": {
            "get": {
                "operationId": "GetSwaggerSpec",
                "description": "Get the Swagger specification.",
                **swagger,
            }
        },
    }


def _swagger_2(settings: ScriptSettings, taken: Document, answered: Document) -> Document:
    def responses(description: str, schema: Document, **more: Any) -> Document:
        failed = {"description": _FAILED, "schema": {"$ref": "#/definitions/ErrorResponse"}}
        good = {"description": description, "schema": schema, **more}
        return {"responses": {"200": good, "default": failed}}

    health = responses(_HEALTHY, {"type": "string"}, examples={"application/json": "Healthy"})
    body = {
        "name": "serviceInputPayload",
        "in": "body",
        "description": "The input payload for executing the real-time machine learning service.",
        "schema": {"$ref": "#/definitions/ServiceInput"},
    }
    score = {"parameters": [body]} | responses(_SCORED, {"$ref": "#/definitions/ServiceOutput"})
    version = {
        "name": "version",
        "in": "query",
        "required": False,
        "type": "integer",
        "enum": [2, 3],
    }
    own = {"parameters": [version]} | responses("The Swagger specification.", {"type": "string"})
    return {
        "swagger": "2.0",
        "info": _info(settings),
        "schemes": ["https"],
        "consumes": ["application/json"],
        "produces": ["application/json"],
        "securityDefinitions": _BEARER,
        "paths": _paths(_prefix(settings), health, score, own),
        "definitions": {
            "ServiceInput": taken,
            "ServiceOutput": answered,
            "ErrorResponse": _ERROR,
        },
    }


def _openapi(
    version: str, settings: ScriptSettings, taken: Document, answered: Document
) -> Document:
    def content(kind: str, schema: Document) -> Document:
        return {"content": {kind: {"schema": schema}}}

    def responses(description: str, body: Document) -> Document:
        error = content("application/json", {"$ref": "#/components/schemas/ErrorResponse"})
        failed = {"description": _FAILED, **error}
        return {"responses": {"200": {"description": description, **body}, "default": failed}}

    healthy = content("text/plain", {"type": "string", "example": "Healthy"})
    body = {
        "description": "The input payload for executing the real-time machine learning service.",
        **content("application/json", {"$ref": "#/components/schemas/ServiceInput"}),
    }
    scored = content("application/json", {"$ref": "#/components/schemas/ServiceOutput"})
    number = {
        "name": "version",
        "in": "query",
        "required": False,
        "schema": {"type": "integer", "enum": [2, 3]},
    }
    own = responses("The Swagger specification.", content("text/plain", {"type": "string"}))
    return {
        "openapi": "3.1.0" if version == "3.1" else "3.0.3",
        "info": _info(settings),
        "security": [{"Bearer": []}],
        "paths": _paths(
            _prefix(settings),
            responses(_HEALTHY, healthy),
            {"requestBody": body} | responses(_SCORED, scored),
            {"parameters": [number]} | own,
        ),
        "components": {
            "schemas": {
                "ServiceInput": taken,
                "ServiceOutput": answered,
                "ErrorResponse": _ERROR,
            },
            "securitySchemes": _BEARER,
        },
    }

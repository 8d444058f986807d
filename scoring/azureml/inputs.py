"""From a request to the arguments of `run()`, for the kinds that need no Flask."""

from __future__ import annotations

import codecs
import inspect
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, quote_from_bytes

import orjson

from scoring.errors import MalformedPayloadError, UnknownInputError, UnsupportedMediaTypeError
from scoring.http import Request

if TYPE_CHECKING:
    from scoring.azureml.loading import Script

Reader = Callable[[Request, str], dict[str, Any]]
"""Takes a GET or POST request and its content type."""

_KEEP_QUOTED = "scoring.azureml.keep_quoted"
# Only these bytes matter to `_has_wide_integer`: digits become 0, all else a blank.
_DIGITS = bytes(48 if chr(byte) in "0123456789" else 32 for byte in range(256))
_WIDE = b"0" * 19


def reader(script: Script, *, strict: bool) -> Reader:
    """The function that turns requests into arguments for a script that is not raw."""
    if script.kind == "schema":
        return _object_reader(script.parameters, strict=strict)
    return _text_reader(script.parameters[0].name, strict=strict)


def _text_reader(name: str, *, strict: bool) -> Reader:
    def read(request: Request, content_type: str) -> dict[str, Any]:
        if request.method == "GET":
            return {name: json.dumps(query_values(request.query))}
        body = request.body
        if strict and is_form(content_type):
            body = _left_by_forms(request)
        try:
            return {name: body.decode()}
        except UnicodeDecodeError as error:
            raise MalformedPayloadError(
                f"Input cannot be decoded as UTF-8: {error}",
                hint="Send text, or let the script take bytes with @rawhttp.",
                where=f"byte {error.start}",
            ) from None

    return read


class FormRefusedError(Exception):
    """Werkzeug refuses to read a form, in strict mode."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def _left_by_forms(request: Request) -> bytes:
    """What Werkzeug leaves of a body that it has read as a form: nothing, most of the time."""
    from scoring.azureml import wsgi  # noqa: PLC0415  -- Flask, for strict mode alone

    refusal, rest = wsgi.read_form(request)
    if refusal:
        raise FormRefusedError(*refusal)
    return rest


def _object_reader(parameters: tuple[inspect.Parameter, ...], *, strict: bool) -> Reader:
    decode = _decode_strict if strict else _decode

    def read(request: Request, content_type: str) -> dict[str, Any]:
        if request.method == "GET":
            return _select(query_values(request.query), parameters)
        if not is_json(content_type):
            raise UnsupportedMediaTypeError(
                "Expects Content-Type to be application/json",
                hint="Send the header 'Content-Type: application/json'.",
            )
        document = decode(request.body)
        if not isinstance(document, dict):
            raise MalformedPayloadError("POST body should be a JSON dictionary.", where="$")
        return _select(document, parameters)

    return read


def _select(document: dict[str, Any], parameters: tuple[inspect.Parameter, ...]) -> dict[str, Any]:
    arguments = {}
    for parameter in parameters:
        value = document.get(parameter.name, parameter.default)
        if value is inspect.Parameter.empty:
            raise UnknownInputError(
                f"A value is not provided for the {parameter.name!r} parameter.",
                where=parameter.name,
            )
        arguments[parameter.name] = value
    return arguments


def _decode_strict(body: bytes) -> Any:
    try:
        return json.loads(body)
    except json.JSONDecodeError as error:
        raise _malformed(body, error) from None


def _decode(body: bytes) -> Any:
    """As `json.loads`, with its NaN, wide integers and messages, but fast where it can be."""
    if not _has_wide_integer(body):
        try:
            return orjson.loads(body)
        except orjson.JSONDecodeError:
            pass
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise _malformed(body, error) from None


def _has_wide_integer(body: bytes) -> bool:
    """Whether a number may be one that orjson would round to a float."""
    return _WIDE in body.translate(_DIGITS)


def _malformed(body: bytes, error: Exception) -> MalformedPayloadError:
    if not body:
        return MalformedPayloadError("POST body is empty. Expecting a JSON dictionary.", where="$")
    where = ""
    if isinstance(error, json.JSONDecodeError):
        where = f"line {error.lineno} column {error.colno}"
    return MalformedPayloadError(f"POST body could not be decoded as JSON: {error}", where=where)


def query_values(query: str) -> dict[str, Any]:
    """The query's values, each read as JSON where it is JSON; repeated names become lists."""
    values: dict[str, list[Any]] = {}
    for name, text in parse_qsl(query, keep_blank_values=True, errors=_KEEP_QUOTED):
        values.setdefault(name, []).append(_json_or_text(text))
    return {name: items[0] if len(items) == 1 else items for name, items in values.items()}


def _json_or_text(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _keep_quoted(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeDecodeError)
    return quote_from_bytes(error.object[error.start : error.end], safe=""), error.end


# Bytes that are not UTF-8 stay percent-encoded, as Werkzeug has it.
codecs.register_error(_KEEP_QUOTED, _keep_quoted)


def _essence(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()


def is_json(content_type: str) -> bool:
    """Whether the type is `application/json` or one of its `+json` kin."""
    essence = _essence(content_type)
    return essence == "application/json" or (
        essence.startswith("application/") and essence.endswith("+json")
    )


def is_form(content_type: str) -> bool:
    """Whether the type is one that HTML forms send."""
    return _essence(content_type) in {"application/x-www-form-urlencoded", "multipart/form-data"}

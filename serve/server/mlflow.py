"""The routes of `mlflow models serve`, for the server's default model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from scoring import __version__
from scoring.errors import (
    FieldpostError,
    MalformedPayloadError,
    UnknownInputError,
    UnknownModelError,
    UnsupportedMediaTypeError,
)
from scoring.http import Response
from scoring.payload import byrow, table
from scoring.payload.codec import dumps
from scoring.payload.document import Document, parse
from scoring.payload.extra import without_extra
from scoring.payload.mediatype import JSON_TYPES
from scoring.payload.places import listed
from scoring.payload.words import kind_of
from serve.server.modelcalls import ExchangeJsonCall, FastJsonCall, quick, refuse, teller
from serve.server.status import JSON

if TYPE_CHECKING:
    from scoring.runtimes.base import Arrays
    from serve.server.app import Handler, Shape, Table
    from serve.server.exchange import Exchange
    from serve.server.hub import Fast
    from serve.server.modelcalls import Decode
    from serve.server.models.call import Call
    from serve.server.models.repository import Repository
    from serve.server.models.served import ServedModel
    from serve.server.protocol import Connection

_KEYS = ("dataframe_split", "dataframe_records", "instances", "inputs")
_CSV = "text/csv"
_VERSION = f"fieldpost/{__version__}".encode()
_TEXT = ("content-type", "text/plain; charset=utf-8")
_UTF8 = frozenset({"utf-8", "utf8"})
_CODES = {
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "RESOURCE_DOES_NOT_EXIST",
    429: "REQUEST_LIMIT_EXCEEDED",
    503: "TEMPORARILY_UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
_SERVER_ERRORS = 500

failure = teller(lambda status, text: {"error_code": error_code(status), "message": text})
"""An error in MLflow's form."""


def error_code(status: int) -> str:
    """MLflow's name for a status."""
    return _CODES.get(status, "BAD_REQUEST" if status < _SERVER_ERRORS else "INTERNAL_ERROR")


class _FastCall(FastJsonCall):
    __slots__ = ()
    protocol = "mlflow"
    route = "/invocations"


class _ExchangeCall(ExchangeJsonCall):
    __slots__ = ()
    protocol = _FastCall.protocol
    route = _FastCall.route


class MlflowService:
    """Answers for the default model of a repository.

    Args:
        repository: The server's models.
        ready: Whether the server takes new requests.
    """

    prefixes: Mapping[str, Handler] = {}
    shapes: Mapping[str, Shape] = {"/invocations": failure}

    def __init__(self, repository: Repository, ready: Callable[[], bool] = lambda: True) -> None:
        self._repository = repository
        self._ready = ready
        self.fast: Mapping[bytes, Fast] = {b"/invocations": self._invoke_fast}
        self.routes: Table = {
            "/invocations": {"POST": self._invoke},
            "/ping": {"GET": self._ping},
            "/health": {"GET": self._ping},
            "/version": {"GET": _tell_version},
        }

    def _model(self) -> ServedModel:
        model = self._repository.default
        if model is None:
            raise UnknownModelError(
                "No model of this server is the one that /invocations answers for.",
                hint="Name one: POST /v2/models/NAME/infer or /v1/models/NAME:predict.",
            )
        return model

    def _invoke_fast(self, connection: Connection, body: bytes | bytearray) -> Call | None:
        model = self._repository.default
        if model is None:
            return None
        call = _FastCall(connection, model, body, decode, encode, failure)
        model.submit(call)
        return call

    def _invoke(self, exchange: Exchange) -> None:
        try:
            decoder = decoder_for(exchange.header(b"content-type"))
            model = self._model()
            call = _ExchangeCall(exchange, model, decoder, encode, failure)
            model.submit(call)
            exchange.job = call
        except FieldpostError as error:
            refuse(exchange, error, failure)

    def _ping(self, exchange: Exchange) -> None:
        exchange.respond(Response(200 if self._ready() else 503, b"\n", [JSON]))


def _tell_version(exchange: Exchange) -> None:
    exchange.respond(Response(200, _VERSION, [_TEXT]))


def decoder_for(content_type: str) -> Decode:
    """What decodes a body of a content type.

    Raises:
        UnsupportedMediaTypeError: It is neither JSON nor CSV, or not in UTF-8.
    """
    if content_type.encode("latin-1") in JSON_TYPES:
        return decode
    kind, *parameters = (part.strip() for part in content_type.lower().split(";"))
    for parameter in filter(None, parameters):
        name, _, value = parameter.partition("=")
        # `format=pandas-split` was MLflow's way to tell the form, until version 2.
        if name.strip() != "charset" or value.strip(' "') not in _UTF8:
            raise UnsupportedMediaTypeError(
                f"The parameter {parameter!r} of the content type is not supported.",
                hint='Name the form in the body: {"dataframe_split": …}, in UTF-8.',
                where="content-type",
            )
    if kind == _CSV:
        return decode_csv
    if kind == "application/json" or kind.endswith("+json"):
        return decode
    raise UnsupportedMediaTypeError(
        f"This route takes application/json and text/csv, not {kind!r}.", where="content-type"
    )


def decode(model: ServedModel, body: bytes | bytearray) -> tuple[Arrays, bool]:
    """The inputs in a JSON body, and whether they came as columns.

    Raises:
        InputError: What the sender has to change, with its place.
    """
    found = quick(model, body)
    if found is not None:
        return found
    document = parse(body)
    key = _payload_key(document.value)
    value = without_extra(document.value[key], model.schema)
    payload = Document({key: value}, document.plain)
    return model.codec.decode_document(payload).inputs, key == "inputs"


def _payload_key(value: Any) -> str:
    hint = f"Send a JSON object with exactly one of {listed(_KEYS)}."
    if not isinstance(value, dict):
        raise MalformedPayloadError(f"The body is {kind_of(value)}, not an object.", hint=hint)
    found = [key for key in _KEYS if key in value]
    if len(found) != 1:
        raise UnknownInputError(
            f"The input must be a JSON dictionary with exactly one of the input fields; "
            f"this one has {listed(list(value)) if value else 'none'}.",
            hint=hint,
        )
    return found[0]


def decode_csv(model: ServedModel, body: bytes | bytearray) -> tuple[Arrays, bool]:
    """The inputs in a body of CSV; raises as `decode` does."""
    document = table.parse(body, model.schema)
    document.value = without_extra(document.value, model.schema)
    return model.codec.decode_document(document).inputs, False


def encode(model: ServedModel, outputs: Mapping[str, Any], by_column: bool) -> bytes:
    """The answer: `predictions`, whatever the form of the request."""
    form = byrow.by_column if by_column else byrow.by_row
    return dumps({"predictions": form(outputs, model.schema)})

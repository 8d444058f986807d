"""KServe's first protocol, which is that of TensorFlow Serving: `/v1/models/NAME:predict`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import orjson

from scoring.errors import (
    FieldpostError,
    MalformedPayloadError,
    ModelNotReadyError,
    UnknownInputError,
)
from scoring.http import Response
from scoring.payload import base64text, byrow
from scoring.payload.codec import dumps
from scoring.payload.document import Document, parse
from scoring.payload.mediatype import require_json
from scoring.payload.words import kind_of
from serve.server.errors import MethodNotAllowedError, RouteNotFoundError
from serve.server.modelcalls import ExchangeJsonCall, FastJsonCall, quick, refuse, teller
from serve.server.status import JSON, sentence, status_of

if TYPE_CHECKING:
    from scoring.runtimes.base import Arrays
    from serve.server.app import Handler, Shape, Table
    from serve.server.exchange import Exchange
    from serve.server.hub import Fast
    from serve.server.models.call import Call
    from serve.server.models.repository import Repository
    from serve.server.models.served import ServedModel
    from serve.server.protocol import Connection

PREFIX = "/v1/models/"
_PREDICT = "predict"
_FORMS = 'Send {"instances": [one value for each row]} or {"inputs": {name: [column]}}.'
_KEYS = ("instances", "inputs")


class _FastCall(FastJsonCall):
    __slots__ = ()
    protocol = "v1"
    route = f"{PREFIX}{{model}}:{_PREDICT}"


class _ExchangeCall(ExchangeJsonCall):
    __slots__ = ()
    protocol = _FastCall.protocol
    route = _FastCall.route


class V1Service:
    """Answers for every model of a repository.

    Args:
        repository: The server's models.
    """

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self.routes: Table = {"/v1/models": {"GET": self._list}}
        self.prefixes: Mapping[str, Handler] = {PREFIX: self._handle}
        self.shapes: Mapping[str, Shape] = {"/v1/": failure}

    @property
    def fast(self) -> Mapping[bytes, Fast]:
        """The targets of all models that are loaded now."""
        names = {model.name for model in self._repository.models()}
        return {
            f"{PREFIX}{name}:{_PREDICT}".encode(): partial(self._predict_fast, name)
            for name in names
        }

    def _predict_fast(
        self, name: str, connection: Connection, body: bytes | bytearray
    ) -> Call | None:
        model = self._repository.get(name)
        call = _FastCall(connection, model, body, decode, encode, failure)
        model.submit(call)
        return call

    def _handle(self, exchange: Exchange) -> None:
        try:
            name, version, verb = _split(exchange.path)
            _handler(self, verb, exchange)(exchange, name, version)
        except FieldpostError as error:
            refuse(exchange, error, failure)

    def _predict(self, exchange: Exchange, name: str, version: str) -> None:
        require_json(exchange.header(b"content-type"))
        model = self._repository.get(name, version)
        call = _ExchangeCall(exchange, model, decode, encode, failure)
        model.submit(call)
        exchange.job = call

    def _tell_state(self, exchange: Exchange, name: str, version: str) -> None:
        try:
            self._repository.get(name, version)
        except ModelNotReadyError as error:
            document = {"name": name, "ready": False, "error": sentence(error)}
            exchange.respond(Response(status_of(error), orjson.dumps(document), [JSON]))
            return
        exchange.respond(Response(200, orjson.dumps({"name": name, "ready": True}), [JSON]))

    def _list(self, exchange: Exchange) -> None:
        names = dict.fromkeys(entry.name for entry in self._repository.index())
        exchange.respond(Response(200, orjson.dumps({"models": list(names)}), [JSON]))


Answer = Callable[["Exchange", str, str], None]


def _handler(service: V1Service, verb: str, exchange: Exchange) -> Answer:
    """What answers a verb; an empty one asks for the model's state."""
    if verb and verb != _PREDICT:
        raise RouteNotFoundError(
            f"There is no {verb!r} of a model here.", hint="A model's verb is ':predict'."
        )
    method = "GET" if exchange.method == "HEAD" else exchange.method
    wanted = "POST" if verb else "GET"
    if method != wanted:
        raise MethodNotAllowedError(
            f"{exchange.path} does not take {exchange.method}.", allow=(wanted,)
        )
    return service._predict if verb else service._tell_state  # noqa: SLF001 - of this module


def _split(path: str) -> tuple[str, str, str]:
    """The name, version and verb in a path such as `/v1/models/NAME/versions/2:predict`."""
    name, *rest = path.removeprefix(PREFIX).split("/")
    last = rest[-1] if rest else name
    head, _, verb = last.partition(":")
    if not rest:
        return head, "", verb
    if len(rest) == 2 and rest[0] == "versions" and head:  # noqa: PLR2004
        return name, head, verb
    raise RouteNotFoundError(
        f"There is no {path!r} here.", hint=f"Requests go to {PREFIX}NAME:{_PREDICT}."
    )


failure = teller(lambda _status, text: {"error": text})
"""An error in KServe's form."""


def decode(model: ServedModel, body: bytes | bytearray) -> tuple[Arrays, bool]:
    """The inputs in a body, and whether they came as columns.

    Raises:
        InputError: What the sender has to change, with its place.
    """
    found = quick(model, body)
    if found is not None:
        return found
    document = parse(body)
    key = _payload_key(document.value)
    value = document.value[key]
    if base64text.takes_text(model.schema) and b'"b64"' in body:
        value = base64text.decoded(value, key)
    decoded = model.codec.decode_document(Document({key: value}, document.plain))
    return decoded.inputs, key == "inputs"


def _payload_key(value: Any) -> str:
    if not isinstance(value, dict):
        raise MalformedPayloadError(f"The body is {kind_of(value)}, not an object.", hint=_FORMS)
    found = [key for key in _KEYS if key in value]
    if len(found) != 1:
        have = "both 'instances' and 'inputs'" if found else "neither 'instances' nor 'inputs'"
        raise UnknownInputError(f"The body has {have}.", hint=_FORMS)
    return found[0]


def encode(model: ServedModel, outputs: Mapping[str, Any], by_column: bool) -> bytes:
    """The answer: `predictions` by row, or `outputs` to `inputs`."""
    if by_column:
        return dumps({"outputs": byrow.by_column(outputs, model.schema)})
    return dumps({"predictions": byrow.by_row(outputs, model.schema)})

"""`POST /score` of a model with a schema, and the pages that describe it."""

from __future__ import annotations

from collections.abc import Mapping
from math import inf
from time import perf_counter
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

import orjson

from scoring.errors import UnknownModelError
from scoring.http import Response
from scoring.payload.mediatype import require_json
from serve.server.errors import RouteNotFoundError
from serve.server.models.call import Call
from serve.server.status import JSON, code_of, failure_response

if TYPE_CHECKING:
    from scoring.payload.orientation import Style
    from scoring.runtimes.base import Arrays
    from serve.server.app import Handler, Shape, Table
    from serve.server.exchange import Exchange
    from serve.server.hub import Fast
    from serve.server.models.repository import Repository
    from serve.server.models.served import ServedModel
    from serve.server.protocol import Connection

_TEXT = ("content-type", "text/plain; charset=utf-8")


class ScoreCall(Call):
    """One `POST /score`: rows by the model's schema in, JSON out."""

    __slots__ = ("_body", "_codec", "_style")
    protocol = "score"
    route = "/score"

    def __init__(self, model: ServedModel, body: bytes | bytearray, begun: float) -> None:
        super().__init__(len(body), begun)
        self._codec = model.codec
        self._body = body
        self._style: Style = "predictions"

    def decode(self) -> Arrays:
        """See `Call`."""
        inputs = self._codec.quick(self._body)
        if inputs is not None:
            return inputs
        decoded = self._codec.decode(self._body)
        self._style = decoded.style
        return decoded.inputs

    def encode(self, outputs: Mapping[str, Any]) -> bytes:
        """The JSON of the answer."""
        return self._codec.encode(outputs, self._style)


class _FastCall(ScoreCall):
    __slots__ = ("_connection",)

    def __init__(self, model: ServedModel, body: bytes | bytearray, connection: Connection) -> None:
        # What the classes above do, in one call less for each of them.
        self.size = len(body)
        self.begun = perf_counter()
        self.deadline = inf
        self.cancelled = False
        self.times = ()
        self.details = None
        self._codec = model.codec
        self._body = body
        self._style = "predictions"
        self._connection = connection

    def settle(self, result: Any, error: BaseException | None) -> None:
        if error is None:
            self._connection.answer_hot(self, result)
        else:
            response = failure_response(error, "POST /score")
            self._connection.answer_response(self, response, code_of(error))


class _ExchangeCall(ScoreCall):
    __slots__ = ("_exchange",)

    def __init__(self, model: ServedModel, exchange: Exchange) -> None:
        super().__init__(model, exchange.body, exchange.begun)
        self.deadline = exchange.deadline
        self._exchange = exchange

    def settle(self, result: Any, error: BaseException | None) -> None:
        if error is None:
            self._exchange.respond(Response(200, result, [JSON]))
        else:
            self._exchange.fail(error)


class ScoreService:
    """Answers for the default model of a repository.

    Args:
        repository: The server's models.
    """

    fallback: Handler | None = None
    bodies_as_sent = False
    prefixes: Mapping[str, Handler] = {}
    shapes: Mapping[str, Shape] = {}

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._documents: dict[tuple[ServedModel, str], bytes] = {}
        self.fast: Mapping[bytes, Fast] = {b"/score": self._score_fast}
        self.routes: Table = {
            "/": {"GET": _healthy},
            "/score": {"POST": self._score, "OPTIONS": _options},
            "/swagger.json": {"GET": self._swagger},
            "/openapi.json": {"GET": self._openapi},
        }
        repository.watch(self._documents.clear)

    def _model(self) -> ServedModel:
        model = self._repository.default
        if model is None:
            raise UnknownModelError(
                "No model of this server is the one that /score answers for.",
                hint="Name one: POST /v2/models/NAME/infer or /v1/models/NAME:predict.",
            )
        return model

    def _score_fast(self, connection: Connection, body: bytes | bytearray) -> Call | None:
        model = self._repository.default
        if model is None:
            return None
        call = _FastCall(model, body, connection)
        model.submit(call)
        return call

    def _score(self, exchange: Exchange) -> None:
        require_json(exchange.header(b"content-type"))
        model = self._model()
        call = _ExchangeCall(model, exchange)
        model.submit(call)
        exchange.job = call

    def _swagger(self, exchange: Exchange) -> None:
        version = parse_qs(exchange.query, keep_blank_values=True).get("version", ["2"])[0]
        self._document(version, exchange)

    def _openapi(self, exchange: Exchange) -> None:
        self._document("3", exchange)

    def _document(self, version: str, exchange: Exchange) -> None:
        model = self._model()
        page = self._documents.get((model, version))
        if page is None:
            page = self._documents[model, version] = _describe(model, version)
        exchange.respond(Response(200, page, [JSON]))


def _describe(model: ServedModel, version: str) -> bytes:
    from scoring import openapi  # noqa: PLC0415 - few servers are ever asked for it

    if version not in openapi.VERSIONS:
        raise RouteNotFoundError(
            f"There is no version {version!r} of this document.",
            hint=f"The versions are {', '.join(openapi.VERSIONS)}.",
            where="version",
        )
    return orjson.dumps(openapi.document(model.schema, version, name=model.name))


def _healthy(exchange: Exchange) -> None:
    exchange.respond(Response(200, b"Healthy", [_TEXT]))


def _options(exchange: Exchange) -> None:
    exchange.respond(Response(200, b"", [("allow", "OPTIONS, POST"), _TEXT]))

"""The routes of the Open Inference Protocol, and of Triton's and KServe's extensions of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import orjson

from scoring.errors import (
    FieldpostError,
    MalformedPayloadError,
    ModelNotReadyError,
    UnknownInputError,
    WrongTypeError,
)
from scoring.http import Response
from scoring.payload.document import parse
from scoring.payload.places import quoted
from scoring.payload.words import kind_of
from serve.server.errors import MethodNotAllowedError, RouteNotFoundError
from serve.server.hub import TENSORS
from serve.server.status import JSON, code_of, sentence
from serve.server.v2 import metadata
from serve.server.v2.calls import ExchangeCall, FastCall
from serve.server.v2.compression import compress, wanted_coding
from serve.server.v2.endpoint import Endpoint
from serve.server.v2.errors import failure_response

if TYPE_CHECKING:
    from serve.server.app import Handler, Shape
    from serve.server.exchange import Exchange
    from serve.server.hub import Fast
    from serve.server.jobs import Jobs
    from serve.server.models.call import Call
    from serve.server.models.repository import Repository
    from serve.server.protocol import Connection
    from serve.server.settings import ServerSettings

Methods = Mapping[str, Callable[["Exchange"], None]]

_JSON_SIZE = b"inference-header-content-length"
_MAX_DIGITS = 18
_COMPRESSED_AWAY_BYTES = 64 * 1024
_CONTROLS = frozenset({"load", "unload"})


class V2Service:
    """Answers for every model of a repository. Lives on the event loop's thread.

    Args:
        repository: The server's models.
        jobs: Where large answers are compressed.
        settings: The server's.
    """

    def __init__(
        self,
        repository: Repository,
        jobs: Jobs,
        settings: ServerSettings,
    ) -> None:
        self._repository = repository
        self._jobs = jobs
        self._settings = settings
        self._endpoints: dict[tuple[str, str], Endpoint] = {}
        self.routes: Mapping[str, Methods] = {}
        self._pages: dict[str, Methods] = {
            "": {"GET": self._server},
            "openapi.json": {"GET": _openapi},
            "models": {"GET": self._list},
            "models/stats": {"GET": partial(self._statistics, "", "")},
            "repository/index": {"POST": self._index},
        }
        # Errors of any path and method below have the protocol's own shape.
        self.prefixes: Mapping[str, Handler] = {"/v2": self._handle}
        self.shapes: Mapping[str, Shape] = {"/v2": failure_response}
        repository.watch(self._endpoints.clear)

    @property
    def fast(self) -> Mapping[bytes, Fast]:
        """The targets of the loaded models' infer routes, for JSON and for binary tensors."""
        found: dict[bytes, Fast] = {}
        for model in self._repository.models():
            name, version = model.name, model.version
            path = f"/v2/models/{quote(name, safe='')}"
            for target, asked in (
                (f"{path}/versions/{quote(version, safe='')}/infer".encode(), version),
                (f"{path}/infer".encode(), ""),
            ):
                found[target] = partial(self._infer_fast, name, asked)
                found[TENSORS + target] = partial(self._infer_tensors, name, asked)
        return found

    def _endpoint(self, name: str, version: str) -> Endpoint:
        model = self._repository.get(name, version)
        endpoint = self._endpoints.get((name, version))
        if endpoint is None or endpoint.model is not model:
            endpoint = Endpoint(model, self._settings.max_depth)
            self._endpoints[name, version] = endpoint
        return endpoint

    # Routing

    def _handle(self, exchange: Exchange) -> None:
        try:
            self._handler(exchange)(exchange)
        except Exception as error:  # noqa: BLE001 - logged or told
            _fail(exchange, error)

    def _handler(self, exchange: Exchange) -> Callable[[Exchange], None]:
        below = exchange.path.removeprefix("/v2")
        methods = self._methods(below) if below[:1] in {"", "/"} else None
        if methods is None:
            raise RouteNotFoundError(
                f"There is no {exchange.path!r} here.",
                hint="GET /v2/openapi.json describes what there is.",
            )
        handler = methods.get("GET" if exchange.method == "HEAD" else exchange.method)
        if handler is None:
            raise MethodNotAllowedError(
                f"{exchange.path} does not take {exchange.method}.", allow=tuple(methods)
            )
        return handler

    def _methods(self, path: str) -> Methods | None:
        path = path.strip("/")
        if path in self._pages:
            return self._pages[path]
        match path.split("/"):
            case ["models", name, "versions", version, *rest] if name and version:
                return self._model_methods(name, version, rest)
            case ["models", name, *rest] if name:
                return self._model_methods(name, "", rest)
            case ["repository", "models", name, control] if name and control in _CONTROLS:
                return {"POST": partial(self._control, name, control)}
        return None

    def _model_methods(self, name: str, version: str, rest: list[str]) -> Methods | None:
        match rest:
            case ["infer"]:
                return {"POST": partial(self._infer, name, version)}
            case []:
                page = self._model
            case ["ready"]:
                page = self._model_ready
            case ["stats"]:
                page = self._statistics
            case ["config"]:
                page = self._config
            case _:
                return None
        return {"GET": partial(page, name, version)}

    # Inference

    def _infer_fast(
        self, name: str, version: str, connection: Connection, body: bytes | bytearray
    ) -> Call:
        endpoint = self._endpoint(name, version)
        call = FastCall(endpoint, body, connection)
        endpoint.model.submit(call)
        return call

    def _infer_tensors(
        self, name: str, version: str, connection: Connection, body: bytes | bytearray
    ) -> Call:
        endpoint = self._endpoint(name, version)
        size = _json_size(connection.json_size.decode("latin-1"))
        call = FastCall(endpoint, body, connection, size)
        endpoint.model.submit(call)
        return call

    def _infer(self, name: str, version: str, exchange: Exchange) -> None:
        endpoint = self._endpoint(name, version)
        size = _json_size(exchange.header(_JSON_SIZE))
        call = ExchangeCall(endpoint, exchange, size, self._respond)
        endpoint.model.submit(call)
        exchange.job = call

    def _respond(self, exchange: Exchange, response: Response) -> None:
        accepted = exchange.header(b"accept-encoding")
        coding = wanted_coding(accepted) if accepted else ""
        if not coding:
            exchange.respond(response)
        elif len(response.body) < _COMPRESSED_AWAY_BYTES:  # type: ignore[arg-type]
            exchange.respond(compress(response, coding))
        else:
            exchange.job = self._jobs.submit(
                partial(compress, response, coding), exchange.settle, unbounded=True
            )

    # Documents

    def _server(self, exchange: Exchange) -> None:
        _tell(exchange, metadata.server(self._settings.server_name))

    def _list(self, exchange: Exchange) -> None:
        names = dict.fromkeys(model.name for model in self._repository.models())
        _tell(exchange, {"models": list(names)})

    def _model(self, name: str, version: str, exchange: Exchange) -> None:
        endpoint = self._endpoint(name, version)
        _tell(exchange, metadata.model(endpoint, self._repository.versions(name)))

    def _config(self, name: str, version: str, exchange: Exchange) -> None:
        _tell(exchange, metadata.config(self._endpoint(name, version)))

    def _model_ready(self, name: str, version: str, exchange: Exchange) -> None:
        try:
            self._repository.get(name, version)
        except ModelNotReadyError as error:
            _tell(exchange, {"name": name, "ready": False, "error": sentence(error)}, 503)
        else:
            _tell(exchange, {"name": name, "ready": True})

    def _statistics(self, name: str, version: str, exchange: Exchange) -> None:
        models = [
            model
            for model in self._repository.models()
            if name in {"", model.name} and version in {"", model.version}
        ]
        if name and not models:
            models = [self._repository.get(name, version)]  # tells why there is none
        _tell(exchange, metadata.statistics((m.name, m.version, m.stats) for m in models))

    # The repository

    def _index(self, exchange: Exchange) -> None:
        document = _optional_object(exchange.body)
        ready = document.get("ready", False)
        _require_boolean(ready, "ready")
        _tell(exchange, metadata.index(self._repository.index(), ready=ready))

    def _control(self, name: str, control: str, exchange: Exchange) -> None:
        document = _optional_object(exchange.body)
        _check_control(document.get("parameters"), control)

        def done(error: BaseException | None) -> None:
            if error is None:
                _tell(exchange, {"name": name, control: True})
            else:
                _fail(exchange, _not_controlled(error, name, control))

        if control == "load":
            self._repository.load(name, done)
        else:
            self._repository.unload(name, done)


def _json_size(text: str) -> int | None:
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS):
        raise MalformedPayloadError(
            f"Inference-Header-Content-Length is {quoted(text)}, not a number of bytes.",
            hint="Send the length of the JSON before the binary data.",
            where="inference-header-content-length",
        )
    return int(text)


def _optional_object(body: bytes | bytearray) -> dict[str, Any]:
    """The JSON object of a body; an empty body is an empty one."""
    if not body.strip():
        return {}
    value = parse(body).value
    if not isinstance(value, dict):
        raise MalformedPayloadError(
            f"The body is {kind_of(value)}, not an object.", hint="Send {} or nothing."
        )
    return value


def _check_control(parameters: Any, control: str) -> None:
    """Refuses what a load or unload cannot do here: models come from their packages alone."""
    if parameters is None:
        return
    if not isinstance(parameters, dict):
        raise WrongTypeError(
            f"parameters is {kind_of(parameters)}, not an object.", where="parameters"
        )
    for name, value in parameters.items():
        if control == "unload" and name == "unload_dependents":
            _require_boolean(value, "parameters.unload_dependents")
            continue
        what = "files" if name.startswith("file:") else f"parameter {quoted(name)}"
        raise UnknownInputError(
            f"parameters: {control} takes no {what} here.",
            hint="Models are loaded as they were packaged; register and package another version.",
            where=f"parameters.{name}",
        )


def _require_boolean(value: Any, where: str) -> None:
    if not isinstance(value, bool):
        raise WrongTypeError(f"{where} is {kind_of(value)}, not a boolean.", where=where)


def _not_controlled(error: BaseException, name: str, control: str) -> BaseException:
    """The error with the words that Triton's clients look for."""
    start = f"failed to {control} '{name}'"
    if isinstance(error, FieldpostError) and start not in error.message:
        error.message = f"{start}, {error.message}"
    return error


def _openapi(exchange: Exchange) -> None:
    from serve.server.v2 import openapi  # noqa: PLC0415 - few servers are ever asked for it

    _tell(exchange, openapi.document())


def _tell(exchange: Exchange, document: Any, status: int = 200) -> None:
    exchange.respond(Response(status, orjson.dumps(document), [JSON]))


def _fail(exchange: Exchange, error: BaseException) -> None:
    exchange.error = code_of(error)
    exchange.respond(failure_response(error, f"{exchange.method} {exchange.path}"))

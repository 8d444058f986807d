"""What the small runtime answers: the routes, with the same answers and errors as the server's.

Pure but for the clock: requests in, responses out.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs

import msgspec

from edge.circuits.counts import CONTENT_TYPE, Counts
from edge.circuits.looks import Looks
from scoring import openapi
from scoring.errors import (
    FieldpostError,
    InputError,
    OverloadedError,
    PayloadTooLargeError,
    UnsupportedMediaTypeError,
)
from scoring.http import Request, Response
from scoring.httperrors import (
    BadRequestError,
    ExpectationFailedError,
    HeadersTooLargeError,
    HttpVersionError,
    MethodNotAllowedError,
    RequestTimeoutError,
    RouteNotFoundError,
    TransferCodingError,
)
from scoring.payload import coding
from scoring.payload.mediatype import require_json
from scoring.payload.plain import PlainCodec, Rows

if TYPE_CHECKING:
    from edge.circuits.settings import Settings
    from scoring.bundle import Bundle
    from scoring.quantum.pure import PureClassifier
    from scoring.schema import ModelSchema

logger = logging.getLogger(__name__)

JSON: Final = ("content-type", "application/json")
_TEXT: Final = ("content-type", "text/plain; charset=utf-8")
_ROWS_AT_ONCE: Final = 256
"""After so many rows others have their turn: health has to answer meanwhile."""

STATUS: Final[dict[type[FieldpostError], int]] = {
    InputError: 400,
    PayloadTooLargeError: 413,
    UnsupportedMediaTypeError: 415,
    OverloadedError: 503,
    BadRequestError: 400,
    RouteNotFoundError: 404,
    MethodNotAllowedError: 405,
    RequestTimeoutError: 408,
    ExpectationFailedError: 417,
    HeadersTooLargeError: 431,
    TransferCodingError: 501,
    HttpVersionError: 505,
}
"""As `serve.server.status` has them, which is not on a device; a test compares the two."""

Handler = Callable[[Request], Awaitable[Response]]


class Service:
    """Answers for one circuit.

    Args:
        bundle: What the package says of itself.
        schema: What the circuit takes and answers.
        classifier: The circuit.
        settings: The server's.

    Attributes:
        ready: Whether `/health/ready` says so.
    """

    def __init__(
        self, bundle: Bundle, schema: ModelSchema, classifier: PureClassifier, settings: Settings
    ) -> None:
        self.ready = True
        self._name, self._schema, self._classifier = bundle.name, schema, classifier
        self._max_body_bytes = settings.max_body_bytes
        self._codec = PlainCodec(schema, max_depth=settings.max_depth)
        self.counts = Counts(bundle.name, str(bundle.model_version or 1))
        model = (bundle.name, str(bundle.model_version or 1))
        self._looks = (
            Looks(model, schema.inputs[0].name, settings.payload_ratio)
            if settings.inputs == "on"
            else None
        )
        self._routes: dict[str, dict[str, Handler]] = {
            "/": {"GET": self._healthy},
            "/score": {"POST": self._score, "OPTIONS": self._options},
            "/swagger.json": {"GET": self._swagger},
            "/openapi.json": {"GET": self._openapi},
            "/metrics": {"GET": self._metrics},
            "/health/live": {"GET": self._live},
            "/health/startup": {"GET": self._started},
            "/health/ready": {"GET": self._tell_ready},
            "/v2/health/live": {"GET": self._live},
            "/v2/health/ready": {"GET": self._tell_ready},
        }
        if self._looks is not None:
            self._routes["/inputs"] = {"GET": self._inputs}

    async def answer(self, request: Request) -> Response:
        """The answer to a request, whatever goes wrong."""
        begun = time.perf_counter()
        kind = ""
        try:
            response = await self._find(request)(request)
        except FieldpostError as error:
            kind, response = error.code, error_response(error)
        except Exception as error:
            logger.exception("%s %s failed", request.method, request.path)
            kind, response = "internal", error_response(error)
        if request.path == "/score":
            self.counts.answered(response.status, time.perf_counter() - begun, kind)
        return response

    def _find(self, request: Request) -> Handler:
        handlers = self._routes.get(request.path)
        if handlers is None:
            raise RouteNotFoundError(
                f"There is no {request.path!r} here.", hint="Scoring requests go to /score."
            )
        method = "GET" if request.method == "HEAD" else request.method
        if method not in handlers:
            raise MethodNotAllowedError(
                f"{request.path} does not take {request.method}.", allow=tuple(handlers)
            )
        return handlers[method]

    # -- scoring

    async def _score(self, request: Request) -> Response:
        require_json(request.header("content-type"))
        body = request.body
        encoding = request.header("content-encoding")
        if encoding and body:
            body = coding.decode(body, encoding, self._max_body_bytes)
        decoded = self._codec.decode(body)
        outputs = await self._outputs(decoded.rows)
        return Response(200, self._codec.encode(outputs, decoded.style), [JSON])

    async def _outputs(self, rows: Rows) -> dict[str, list[Any]]:
        begun = time.perf_counter()
        shares: Rows = []
        for start in range(0, len(rows), _ROWS_AT_ONCE):
            if start:
                await asyncio.sleep(0)
            shares += self._classifier.predict_proba(rows[start : start + _ROWS_AT_ONCE])
        classes = self._classifier.classes
        labels, probabilities = [spec.name for spec in self._schema.outputs]
        found: dict[str, list[Any]] = {
            labels: [classes[each.index(max(each))] for each in shares],
            probabilities: shares,
        }
        self.counts.ran(len(rows), time.perf_counter() - begun)
        if self._looks is not None:
            self._looks.look(rows, found)
        return found

    async def _options(self, _: Request) -> Response:
        return Response(200, b"", [("allow", "OPTIONS, POST"), _TEXT])

    # -- what describes it, and how it does

    async def _healthy(self, _: Request) -> Response:
        return Response(200, b"Healthy", [_TEXT])

    async def _live(self, _: Request) -> Response:
        return _told("live", yes=True)

    async def _started(self, _: Request) -> Response:
        return _told("started", yes=True)

    async def _tell_ready(self, _: Request) -> Response:
        return _told("ready", yes=self.ready)

    async def _metrics(self, _: Request) -> Response:
        return Response(200, self.counts.page(), [("content-type", CONTENT_TYPE)])

    async def _inputs(self, request: Request) -> Response:
        assert self._looks is not None
        return Response(200, msgspec.json.encode(self._looks.take(request.query)), [JSON])

    async def _swagger(self, request: Request) -> Response:
        asked = parse_qs(request.query, keep_blank_values=True)
        return self._document(asked.get("version", ["2"])[0])

    async def _openapi(self, _: Request) -> Response:
        return self._document("3")

    def _document(self, version: str) -> Response:
        if version not in openapi.VERSIONS:
            raise RouteNotFoundError(
                f"There is no version {version!r} of this document.",
                hint=f"The versions are {', '.join(openapi.VERSIONS)}.",
                where="version",
            )
        page = openapi.document(self._schema, version, name=self._name)
        return Response(200, msgspec.json.encode(page), [JSON])


def error_response(error: Exception) -> Response:
    """The answer that tells the sender: code, message, place, hint, and never a traceback."""
    headers = [JSON]
    if isinstance(error, MethodNotAllowedError):
        headers.append(("allow", ", ".join(error.allow)))
    if isinstance(error, OverloadedError):
        headers.append(("retry-after", "1"))
    if isinstance(error, FieldpostError):
        status = next((STATUS[kind] for kind in type(error).__mro__ if kind in STATUS), 500)
        return Response(status, _dump(error.to_dict()), headers)
    message = "The server failed on this request."
    told = {"code": "internal", "message": message, "hint": "The log of the server says why."}
    return Response(500, _dump(told), headers)


def _dump(error: Mapping[str, object]) -> bytes:
    # Messages quote what the client sent, lone surrogates included.
    texts = {
        name: value.encode("utf-8", "replace").decode() if isinstance(value, str) else value
        for name, value in error.items()
    }
    return msgspec.json.encode({"error": texts})


def _told(what: str, *, yes: bool) -> Response:
    return Response(200 if yes else 503, msgspec.json.encode({what: yes}), [JSON])

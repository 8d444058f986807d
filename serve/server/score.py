"""`POST /score` of a model with a schema, and the pages that describe it."""

from __future__ import annotations

import logging
from functools import partial
from time import perf_counter, thread_time
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

import orjson

from scoring.errors import FieldpostError
from scoring.http import Response
from scoring.payload import Codec
from serve.server.checks import require_json
from serve.server.cost import Cost
from serve.server.errors import RouteNotFoundError
from serve.server.status import JSON, error_response

if TYPE_CHECKING:
    from collections.abc import Mapping

    from scoring.runtimes.base import Predictor
    from serve.server.app import Handler, Table
    from serve.server.exchange import Exchange
    from serve.server.hub import Fast
    from serve.server.jobs import Jobs
    from serve.server.settings import ServerSettings

logger = logging.getLogger(__name__)

_INLINE_BYTES = 256 * 1024
_WARM_UPS = 3
_LONG_S = 0.05
_SAMPLED = 7  # one answer in eight is measured: reading the clock costs as much as parsing the JSON
_TEXT = ("content-type", "text/plain; charset=utf-8")


class ScoreService:
    """Answers with a model, on the event loop while that is quick, else on threads.

    Args:
        predictor: The model.
        jobs: Its threads.
        settings: The server's.
        name: For the documents.
        inline: The model may run on the event loop at all.
    """

    fallback: Handler | None = None
    bodies_as_sent = False

    def __init__(
        self,
        predictor: Predictor,
        jobs: Jobs,
        settings: ServerSettings,
        *,
        name: str,
        inline: bool,
    ) -> None:
        self._predict = predictor.predict
        self._exclusive = not predictor.thread_safe
        self._codec = Codec(predictor.schema, max_depth=settings.max_depth)
        self._jobs = jobs
        self._name = name
        self._cost = Cost(settings.inline_ms / 1000 if inline else 0)
        self._answered_inline = 0
        self._documents: dict[str, bytes] = {}
        self.fast: Mapping[bytes, Fast] = {b"/score": self._answer_fast}
        self.routes: Table = {
            "/": {"GET": _healthy},
            "/score": {"POST": self._score, "OPTIONS": _options},
            "/swagger.json": {"GET": self._swagger},
            "/openapi.json": {"GET": partial(self._document, "3")},
        }

    def warm_up(self) -> None:
        """Answers the example a few times: the first request is not slow, and its cost is known."""
        example = self._codec.schema.example
        if example is None:
            return
        body = orjson.dumps(example)
        try:
            for _ in range(_WARM_UPS):
                start = perf_counter()
                self._answer(body)
                seconds = perf_counter() - start
                if seconds > _LONG_S:
                    break
        except Exception as error:  # noqa: BLE001 - requests will tell; a model may raise anything
            logger.warning("The model does not answer its own example: %s", error)
        else:
            self._cost.note(seconds)

    def _answer(self, body: bytes | bytearray) -> bytes:
        inputs = self._codec.quick(body)
        if inputs is not None:
            return self._codec.encode(self._predict(inputs), "predictions")
        decoded = self._codec.decode(body)
        return self._codec.encode(self._predict(decoded.inputs), decoded.style)

    def _answer_fast(self, body: bytes | bytearray) -> bytes | None:
        if not self._cost.inline or len(body) > _INLINE_BYTES:
            return None
        if self._exclusive and self._jobs.pending:
            return None
        self._answered_inline += 1
        if self._answered_inline & _SAMPLED:
            return self._answer(body)
        start = perf_counter()
        answer = self._answer(body)
        self._cost.note(perf_counter() - start)
        return answer

    def _score(self, exchange: Exchange) -> None:
        require_json(exchange.header(b"content-type"))
        answer = self._answer_fast(exchange.body)
        if answer is not None:
            exchange.respond(Response(200, answer, [JSON]))
            return
        exchange.job = self._jobs.submit(
            partial(self._answer_on_thread, exchange.body), partial(self._answered, exchange)
        )

    def _answer_on_thread(self, body: bytes | bytearray) -> tuple[Response, float]:
        # The thread's own time: on the clock it would wait for the loop between its steps.
        start = thread_time()
        try:
            response = Response(200, self._answer(body), [JSON])
        except FieldpostError as error:
            return error_response(error), 0.0
        seconds = thread_time() - start
        return response, seconds if len(body) <= _INLINE_BYTES else 0.0

    def _answered(
        self,
        exchange: Exchange,
        outcome: tuple[Response, float] | None,
        error: BaseException | None,
    ) -> None:
        if outcome is None:
            exchange.settle(None, error)
            return
        response, seconds = outcome
        if seconds:
            self._cost.note(seconds)
        exchange.respond(response)

    def _swagger(self, exchange: Exchange) -> None:
        version = parse_qs(exchange.query, keep_blank_values=True).get("version", ["2"])[0]
        self._document(version, exchange)

    def _document(self, version: str, exchange: Exchange) -> None:
        page = self._documents.get(version)
        if page is None:
            page = self._documents[version] = self._describe(version)
        exchange.respond(Response(200, page, [JSON]))

    def _describe(self, version: str) -> bytes:
        from scoring import openapi  # noqa: PLC0415 - few servers are ever asked for it

        if version not in openapi.VERSIONS:
            raise RouteNotFoundError(
                f"There is no version {version!r} of this document.",
                hint=f"The versions are {', '.join(openapi.VERSIONS)}.",
                where="version",
            )
        return orjson.dumps(openapi.document(self._codec.schema, version, name=self._name))


def _healthy(exchange: Exchange) -> None:
    exchange.respond(Response(200, b"Healthy", [_TEXT]))


def _options(exchange: Exchange) -> None:
    exchange.respond(Response(200, b"", [("allow", "OPTIONS, POST"), _TEXT]))

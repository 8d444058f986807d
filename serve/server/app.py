"""The routes of a server: health, documents, and the ones that answer for the model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Protocol

import orjson

from scoring.http import Response
from serve.server import content
from serve.server.errors import MethodNotAllowedError, RouteNotFoundError
from serve.server.status import JSON

if TYPE_CHECKING:
    from serve.server.exchange import Exchange
    from serve.server.hub import Fast
    from serve.server.jobs import Jobs

Handler = Callable[["Exchange"], None]
Table = Mapping[str, Mapping[str, Handler]]


class Service(Protocol):
    """What answers for a model or a script.

    Attributes:
        fast: See `serve.server.hub.Routes`.
        routes: Path to method to handler; HEAD is answered by GET's.
        fallback: Takes every other path, its own 404 and 405 included; None: ours.
        bodies_as_sent: Compressed bodies stay compressed.
    """

    fast: Mapping[bytes, Fast]
    routes: Table
    fallback: Handler | None
    bodies_as_sent: bool


class App:
    """All routes of a server; lives on the event loop's thread.

    Args:
        service: Answers for the model.
        jobs: Where bodies are decompressed.
        max_body_bytes: Of a decompressed body.

    Attributes:
        ready: Whether `/health/ready` says so.
    """

    def __init__(self, service: Service, jobs: Jobs, max_body_bytes: int) -> None:
        self.fast = service.fast
        self.ready = True
        self._jobs = jobs
        self._max_body_bytes = max_body_bytes
        self._fallback = service.fallback
        self._decodes = not service.bodies_as_sent
        health: Table = {
            "/health/live": {"GET": partial(_tell, "live", True)},
            "/health/ready": {"GET": self._tell_ready},
            "/health/startup": {"GET": partial(_tell, "started", True)},
        }
        self._routes = {**health, **service.routes}

    def handle(self, exchange: Exchange) -> None:
        """Answers an exchange, now or later; whatever goes wrong becomes its answer."""
        try:
            encoding = exchange.header(b"content-encoding")
            if encoding and exchange.body and self._decodes:
                decode = partial(content.decode, exchange.body, encoding, self._max_body_bytes)
                exchange.job = self._jobs.submit(decode, partial(self._decoded, exchange))
            else:
                self._route(exchange)
        except Exception as error:  # noqa: BLE001 - logged or told by fail()
            exchange.fail(error)

    def _decoded(self, exchange: Exchange, body: bytes, error: BaseException | None) -> None:
        if error is not None:
            exchange.fail(error)
            return
        exchange.body = body
        exchange.headers = [
            (name, value)
            for name, value in exchange.headers
            if name not in {b"content-encoding", b"content-length"}
        ]
        exchange.headers.append((b"content-length", str(len(body)).encode()))
        try:
            self._route(exchange)
        except Exception as failure:  # noqa: BLE001 - as above
            exchange.fail(failure)

    def _route(self, exchange: Exchange) -> None:
        handlers = self._routes.get(exchange.path)
        if handlers is None:
            if self._fallback is None:
                raise RouteNotFoundError(
                    f"There is no {exchange.path!r} here.", hint="Scoring requests go to /score."
                )
            self._fallback(exchange)
            return
        method = "GET" if exchange.method == "HEAD" else exchange.method
        handler = handlers.get(method)
        if handler is None:
            raise MethodNotAllowedError(
                f"{exchange.path} does not take {exchange.method}.", allow=tuple(handlers)
            )
        handler(exchange)

    def _tell_ready(self, exchange: Exchange) -> None:
        _tell("ready", self.ready, exchange)


def _tell(what: str, yes: bool, exchange: Exchange) -> None:
    exchange.respond(Response(200 if yes else 503, orjson.dumps({what: yes}), [JSON]))

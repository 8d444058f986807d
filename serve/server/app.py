"""The routes of a server: health, what its protocols bring, and what comes before every one.

A request passes, in this order: who asks (`Guard`), its deadline, the decoding of its body, whether
it is to be answered later (`Prefer: respond-async`), its route.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Protocol

import orjson

from scoring.errors import MalformedPayloadError
from scoring.http import Response
from scoring.payload import coding
from serve.server.errors import MethodNotAllowedError, RouteNotFoundError
from serve.server.status import JSON, failure_response

if TYPE_CHECKING:
    from scoring.errors import FieldpostError
    from serve.server.access.guard import Gate
    from serve.server.access.principal import Principal
    from serve.server.asyncjobs.gate import AsyncJobsGate
    from serve.server.exchange import Exchange
    from serve.server.hub import Fast
    from serve.server.jobs import Jobs
    from serve.server.models.repository import Repository
    from serve.server.settings import ServerSettings
    from serve.server.telemetry.telemetry import Telemetry

Handler = Callable[["Exchange"], None]
Table = Mapping[str, Mapping[str, Handler]]
Shape = Callable[[BaseException, str], Response]
"""The answer to an error, given what was asked (for the log)."""

_DIGITS = 10


class Service(Protocol):
    """What answers one protocol.

    Attributes:
        fast: See `serve.server.hub.Fast`, by request target.
        routes: Path to method to handler; HEAD is answered by GET's.
        prefixes: Path prefix to the handler of every path under it.
        shapes: Path prefix to the form that errors have there, also those of no route.
    """

    @property
    def fast(self) -> Mapping[bytes, Fast]:
        """See above."""
        ...

    @property
    def routes(self) -> Table:
        """See above."""
        ...

    @property
    def prefixes(self) -> Mapping[str, Handler]:
        """See above."""
        ...

    @property
    def shapes(self) -> Mapping[str, Shape]:
        """See above."""
        ...


@dataclass(frozen=True, slots=True)
class Before:
    """What stands before every route.

    Attributes:
        guard: Who may ask; None: everyone.
        telemetry: Counts and logs what is answered; None: nobody does.
    """

    guard: Gate | None = None
    telemetry: Telemetry | None = None


class App:
    """All routes of a server; lives on the event loop's thread.

    Args:
        jobs: Where bodies are decompressed.
        settings: The server's.
        passes: What stands before every route.
        fallback: Takes every other path, its own 404 and 405 included; None: ours.
        bodies_as_sent: Compressed bodies stay compressed.

    Attributes:
        fast: Of all services; `refresh` renews it in place.
        guard: Who may ask; None: everyone.
        telemetry: Counts and logs what is answered; None: nobody does.
        ready: Whether `/health/ready` says so.
        repository: The models, where the server has any.
        later: Takes the requests that are to be answered later; None: all are answered now.
    """

    repository: Repository | None = None
    later: AsyncJobsGate | None = None

    def __init__(
        self,
        jobs: Jobs,
        settings: ServerSettings,
        passes: Before,
        *,
        fallback: Handler | None = None,
        bodies_as_sent: bool = False,
    ) -> None:
        self.guard = passes.guard
        self.telemetry = passes.telemetry
        self.fast: dict[bytes, Fast] = {}
        self.ready = True
        self._services: list[Service] = []
        self._jobs = jobs
        self._max_body_bytes = settings.max_body_bytes
        self._fallback = fallback
        self._decodes = not bodies_as_sent
        self._routes: dict[str, Mapping[str, Handler]] = {}
        self._prefixes: dict[str, Handler] = {}
        self._shapes: dict[str, Shape] = {}
        self.refresh()

    def add(self, *services: Service) -> None:
        """Adds protocols; of two that take one path, the one that came first has it."""
        self._services += services
        self.refresh()

    def refresh(self) -> None:
        """Asks the services for their routes anew."""
        self.fast.clear()
        self._prefixes.clear()
        self._routes = {
            "/health/live": {"GET": partial(_tell, "live", True)},
            "/health/ready": {"GET": self._tell_ready},
            "/health/startup": {"GET": partial(_tell, "started", True)},
            # Of the Open Inference Protocol: probes ask for them, whatever runs here.
            "/v2/health/live": {"GET": partial(_tell, "live", True)},
            "/v2/health/ready": {"GET": self._tell_ready},
        }
        for service in reversed(self._services):
            self.fast.update(service.fast)
            self._routes.update(service.routes)
            self._prefixes.update(service.prefixes)
            self._shapes.update(service.shapes)
        if self.telemetry is not None:
            self._routes.update(self.telemetry.routes)

    def shape(self, path: str) -> Shape:
        """The form that errors have at a path."""
        for prefix, shape in self._shapes.items():
            if path.startswith(prefix):
                return shape
        return failure_response

    def handle(self, exchange: Exchange) -> None:
        """Answers an exchange, now or later; whatever goes wrong becomes its answer."""
        exchange.shape = self.shape(exchange.path)
        try:
            if self.guard is None or exchange.principal is not None:
                self._admitted(exchange)
                return
            exchange.principal = self.guard.admit(
                exchange.credential, exchange.target, exchange.address
            )
            if exchange.principal is not None:
                self._admitted(exchange)
            else:
                self.guard.decide(
                    exchange.credential, exchange.target, partial(self._decided, exchange)
                )
        except Exception as error:  # noqa: BLE001 - logged or told by fail()
            exchange.fail(error)

    def _decided(
        self, exchange: Exchange, principal: Principal | None, error: FieldpostError | None
    ) -> None:
        if error is not None:
            exchange.fail(error)
            return
        exchange.principal = principal
        self._admitted(exchange)

    def _admitted(self, exchange: Exchange) -> None:
        try:
            if self.telemetry is not None:
                exchange.trace = self.telemetry.trace(exchange.headers)
            timeout = exchange.header(b"timeout-ms")
            if timeout:
                exchange.deadline = monotonic() + _milliseconds(timeout) / 1000
            encoding = exchange.header(b"content-encoding")
            if encoding and exchange.body and self._decodes:
                decode = partial(coding.decode, exchange.body, encoding, self._max_body_bytes)
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
        handler = self._find(exchange)
        if self.later is not None and self.later.wants(exchange):
            self.later.handle_post(exchange)
        else:
            handler(exchange)

    def dispatch(self, exchange: Exchange) -> None:
        """Answers an exchange by its route, without what stands before that.

        Raises:
            FieldpostError: As the route has it.
        """
        self._find(exchange)(exchange)

    def _find(self, exchange: Exchange) -> Handler:
        handlers = self._routes.get(exchange.path)
        exchange.route = exchange.path if handlers is not None else ""
        if handlers is None:
            return self._handler(exchange.path)
        method = "GET" if exchange.method == "HEAD" else exchange.method
        handler = handlers.get(method)
        if handler is None:
            raise MethodNotAllowedError(
                f"{exchange.path} does not take {exchange.method}.", allow=tuple(handlers)
            )
        return handler

    def _handler(self, path: str) -> Handler:
        for prefix, handler in self._prefixes.items():
            if path.startswith(prefix):
                return handler
        if self._fallback is None:
            raise RouteNotFoundError(
                f"There is no {path!r} here.", hint="Scoring requests go to /score."
            )
        return self._fallback

    def _tell_ready(self, exchange: Exchange) -> None:
        _tell("ready", self.ready, exchange)


def _milliseconds(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < _DIGITS):
        raise MalformedPayloadError(
            f"timeout-ms is {text!r}, not a number of milliseconds.",
            hint="Send a whole number, such as 500.",
            where="timeout-ms",
        )
    return int(text)


def _tell(what: str, yes: bool, exchange: Exchange) -> None:
    exchange.respond(Response(200 if yes else 503, orjson.dumps({what: yes}), [JSON]))

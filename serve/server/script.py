"""The Azure ML routes of a scoring script, on the main thread.

One request at a time, or many of an `async def run` on one event loop. Plain POSTs to `/score`, all
that most clients send, come straight from the parser (`ScriptCall`); the others as exchanges.
"""

from __future__ import annotations

from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, cast

import orjson

from scoring.http import Request, Response
from serve.server.exchange import Exchange
from serve.server.models.call import Call
from serve.server.status import code_of, failure_response
from serve.server.telemetry import scripts
from serve.server.telemetry.scripts import within, within_task

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from scoring.azureml.entry import EntryScript
    from serve.server.app import Handler, Shape, Table
    from serve.server.hub import Fast
    from serve.server.jobs import Job, Jobs
    from serve.server.protocol import Connection
    from serve.server.telemetry.context import Trace

CONCURRENCY = 100
"""How many requests an `async def run` works at, unless a setting says otherwise."""

# Every other route is answered without the user's code, and so while that computes, too.
_SCRIPT_PATHS = frozenset({"/score", "/swagger.json"})
_SCORE = b"/score"
_PROTOCOL = "score"
"""What requests to `run()` count as: they are inference, as those to a model are."""


class ScriptService:
    """Hands every request to the script's contract; the contract answers 404 and 405 itself.

    Args:
        entry: The loaded script.
        jobs: The queue at which the main thread works.
        concurrency: How many requests an `async def run` works at.
    """

    def __init__(self, entry: EntryScript, jobs: Jobs, concurrency: int = CONCURRENCY) -> None:
        self._entry = entry
        self._jobs = jobs
        self.fast: Mapping[bytes, Fast] = {}
        if entry.loop is None:
            self.fast = {_SCORE: self._submit_fast}
        self.prefixes: Mapping[str, Handler] = {}
        self.shapes: Mapping[str, Shape] = {_SCORE.decode(): failure}
        self.routes: Table = {"/openapi.json": {"GET": self._openapi}}
        self.fallback: Handler | None = self._handle
        self.bodies_as_sent = entry.takes_bodies_as_sent
        scripts.expect()
        if entry.loop is not None:
            from serve.server.tasks import Tasks  # noqa: PLC0415 - few scripts are asynchronous

            jobs.run_on(Tasks(entry.loop, concurrency))

    def _submit_fast(self, connection: Connection, body: bytes | bytearray) -> Call:
        call = ScriptCall(connection, body)
        answer: Callable[[], Response] = partial(self._entry.handle, call.request())
        telemetry = connection.hub.telemetry
        if telemetry is not None:
            call.channel = telemetry.channel(_PROTOCOL)
            call.trace = telemetry.trace(call.headers) if telemetry.traces else None
        if call.trace is not None:
            answer = partial(within, call.trace, answer)
        call.job = self._jobs.submit(answer, call.settle)
        return call

    def _handle(self, exchange: Exchange) -> None:
        if exchange.path in _SCRIPT_PATHS:
            if exchange.path == "/score" and exchange.method == "POST":
                exchange.protocol = _PROTOCOL
            self._submit(exchange)
        else:
            exchange.respond(self._entry.handle(exchange.request()))

    def _openapi(self, exchange: Exchange) -> None:
        exchange.path, exchange.query = "/swagger.json", "version=3"
        self._submit(exchange)

    def _submit(self, exchange: Exchange) -> None:
        request, deadline = exchange.request(), exchange.deadline
        if self._entry.loop is None:
            answer = partial(self._entry.handle, request)
            if exchange.trace is not None:
                answer = partial(within, exchange.trace, answer)
            exchange.job = self._jobs.submit(answer, exchange.settle, deadline=deadline)
        else:
            start = partial(self._entry.answer, request)
            if exchange.trace is not None:
                start = partial(within_task, exchange.trace, start)
            exchange.job = self._jobs.submit_coroutine(start, exchange.settle, deadline=deadline)


def failure(error: BaseException, request: str) -> Response:
    """The answer to what goes wrong around a script: as everywhere, with Azure's `message` beside.

    Args:
        error: What went wrong.
        request: What was asked, for the log.
    """
    response = failure_response(error, request)
    told = orjson.loads(cast("bytes", response.body))
    response.body = orjson.dumps({**told, "message": told["error"]["message"]})
    return response


class ScriptCall(Call):
    """A plain POST to `/score`, without all that an exchange knows.

    Args:
        connection: Whose turn it is.
        body: Of the request.

    Attributes:
        headers: As they came, names in lower case.
        job: What computes the answer.
        trace: Where the script's own spans belong.
    """

    __slots__ = ("_body", "_connection", "_principal", "headers", "job", "trace")

    job: Job

    def __init__(self, connection: Connection, body: bytes | bytearray) -> None:
        super().__init__(len(body), perf_counter())
        self._connection = connection
        self._principal = connection.principal
        self._body = body
        self.headers = connection.headers
        self.trace: Trace | None = None

    def request(self) -> Request:
        """The request as a plain value."""
        return Request(
            "POST", "/score", "", self._connection.text_headers.copy(), bytes(self._body)
        )

    def settle(self, result: Response | None, error: BaseException | None) -> None:
        """See `Call`."""
        del self.job  # which knows this method: no cycle is left for the collector
        if self.details is not None:
            self.details.trace = self.trace
        if error is not None or result is None:
            reason = error or RuntimeError("a job returned no response")
            told = failure(reason, "POST /score")
            self._connection.answer_response(self, told, code_of(reason))
        elif isinstance(result.body, bytes):
            self._connection.answer_response(self, result)
        else:
            self._connection.answer_stream(self, self._exchange(), result)

    def cancel(self) -> None:
        """See `Call`."""
        super().cancel()
        if hasattr(self, "job"):
            self.job.cancel()

    def _exchange(self) -> Exchange:
        """What a stream needs to know, for as long as it takes."""
        exchange = Exchange(
            self._connection,
            b"POST",
            _SCORE,
            self.headers,
            self._body,
            keep_alive=True,
            principal=self._principal,
        )
        exchange.begun, exchange.trace = self.begun, self.trace
        exchange.channel = self.channel
        return exchange

"""The Azure ML routes of a scoring script, on the main thread.

One request at a time, or many of an `async def run` on one event loop.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from scoring.azureml.entry import EntryScript
    from serve.server.app import Handler, Shape, Table
    from serve.server.exchange import Exchange
    from serve.server.hub import Fast
    from serve.server.jobs import Jobs

CONCURRENCY = 100
"""How many requests an `async def run` works at, unless a setting says otherwise."""

# Every other route is answered without the user's code, and so while that computes, too.
_SCRIPT_PATHS = frozenset({"/score", "/swagger.json"})


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
        self.prefixes: Mapping[str, Handler] = {}
        self.shapes: Mapping[str, Shape] = {}
        self.routes: Table = {"/openapi.json": {"GET": self._openapi}}
        self.fallback: Handler | None = self._handle
        self.bodies_as_sent = entry.takes_bodies_as_sent
        if entry.loop is not None:
            from serve.server.tasks import Tasks  # noqa: PLC0415 - few scripts are asynchronous

            jobs.run_on(Tasks(entry.loop, concurrency))

    def _handle(self, exchange: Exchange) -> None:
        if exchange.path in _SCRIPT_PATHS:
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
                from serve.server.telemetry.traces import within  # noqa: PLC0415 - heavy

                answer = partial(within, exchange.trace, answer)
            exchange.job = self._jobs.submit(answer, exchange.settle, deadline=deadline)
        else:
            start = partial(self._entry.answer, request)
            if exchange.trace is not None:
                from serve.server.telemetry.traces import within_task  # noqa: PLC0415 - heavy

                start = partial(within_task, exchange.trace, start)
            exchange.job = self._jobs.submit_coroutine(start, exchange.settle, deadline=deadline)

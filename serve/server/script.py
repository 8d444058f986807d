"""The Azure ML routes of a scoring script, on the main thread, one request at a time."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from scoring.azureml.entry import EntryScript
    from serve.server.app import Handler, Table
    from serve.server.exchange import Exchange
    from serve.server.hub import Fast
    from serve.server.jobs import Jobs

# Every other route is answered without the user's code, and so while that computes, too.
_SCRIPT_PATHS = frozenset({"/score", "/swagger.json"})


class ScriptService:
    """Hands every request to the script's contract; the contract answers 404 and 405 itself.

    Args:
        entry: The loaded script.
        jobs: The queue at which the main thread works.
    """

    def __init__(self, entry: EntryScript, jobs: Jobs) -> None:
        self._entry = entry
        self._jobs = jobs
        self.fast: Mapping[bytes, Fast] = {}
        self.prefixes: Mapping[str, Handler] = {}
        self.routes: Table = {"/openapi.json": {"GET": self._openapi}}
        self.fallback: Handler | None = self._handle
        self.bodies_as_sent = entry.takes_bodies_as_sent

    def _handle(self, exchange: Exchange) -> None:
        if exchange.path in _SCRIPT_PATHS:
            self._submit(exchange)
        else:
            exchange.respond(self._entry.handle(exchange.request()))

    def _openapi(self, exchange: Exchange) -> None:
        exchange.path, exchange.query = "/swagger.json", "version=3"
        self._submit(exchange)

    def _submit(self, exchange: Exchange) -> None:
        answer = partial(self._entry.handle, exchange.request())
        exchange.job = self._jobs.submit(answer, exchange.settle)

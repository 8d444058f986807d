"""Jobs over HTTP: kept with 202, told at `/jobs/ID`, answered at `/jobs/ID/result`."""

from __future__ import annotations

import asyncio
from functools import partial
from math import inf
from time import monotonic, time
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

import orjson

from scoring.errors import NotFoundError, UsageError
from scoring.http import Response
from serve.server.asyncjobs import prefer, records
from serve.server.asyncjobs.reading import FileBody, read_result
from serve.server.asyncjobs.records import RETRY_AFTER_S, Record, Request
from serve.server.asyncjobs.runner import Runner
from serve.server.asyncjobs.store import Limits, Store
from serve.server.errors import (
    JobStateError,
    MethodNotAllowedError,
    RouteNotFoundError,
)
from serve.server.status import JSON, error_response

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from serve.server.exchange import Exchange
    from serve.server.jobs import Jobs

_MOST_LISTED = 1000
_LISTED = 100
_RETRY = ("retry-after", str(RETRY_AFTER_S))
_LONGEST_KEY = 255


class AsyncJobs:
    """The jobs of a server; on the event loop's thread.

    Args:
        folder: Where they are kept.
        limits: How much of them.
        jobs: The queue of the live requests.
        post: Runs a callable on the event loop's thread.
        dispatch: Answers an exchange by its route.
        concurrency: How many jobs run at once in this worker.

    Raises:
        WorkspaceError: The folder cannot be made.
    """

    def __init__(
        self,
        folder: Path,
        limits: Limits,
        jobs: Jobs,
        post: Callable[..., object],
        dispatch: Callable[[Exchange], None],
        *,
        concurrency: int = 1,
    ) -> None:
        self._store = Store(folder, limits)
        self._runner = Runner(self._store, jobs, post, dispatch, concurrency)
        self._io = self._runner.io
        self._runner.look()

    async def finish(self) -> None:
        """Begins no more jobs; returns when none runs."""
        await self._runner.finish()

    def close(self) -> None:
        """Puts what still runs back into the queue."""
        self._runner.close()

    # New ones

    def handle_post(self, exchange: Exchange) -> None:
        """Keeps a request, and answers 202 when it is on the disk.

        Raises:
            UsageError: The idempotency key is too long.
            OverloadedError: Too many wait to be kept.
        """
        record, request = _record(exchange), _request(exchange)
        wait_s = prefer.parse(exchange.header(b"prefer")).wait_s
        self._io.submit(
            partial(self._store.submit, record, request, exchange.body),
            partial(self._kept, exchange, wait_s),
        )

    def _kept(
        self, exchange: Exchange, wait_s: float, record: Record, error: BaseException | None
    ) -> None:
        if error is not None:
            exchange.fail(error)
            return
        if wait_s > 0:
            self._wait(exchange, record, wait_s)
        else:
            exchange.respond(_accepted(record))
        self._runner.look()

    def _wait(self, exchange: Exchange, record: Record, wait_s: float) -> None:
        """Answers with the result, if that comes in time."""

        def ended() -> None:
            timer.cancel()
            self._send_result(exchange, record.id)

        def over() -> None:
            self._runner.stop_waiting(record.id, ended)
            exchange.respond(_accepted(record))

        if record.is_finished:
            self._send_result(exchange, record.id)
            return
        timer = asyncio.get_running_loop().call_later(wait_s, over)
        self._runner.when_ended(record.id, ended)

    # Those there are

    def list(self, exchange: Exchange) -> None:
        """`GET /jobs?limit=100&status=queued`: the sender's jobs, the newest first."""
        query = parse_qs(exchange.query)
        limit = _limit(query.get("limit", [str(_LISTED)])[0])
        status = query.get("status", [""])[0]
        newest = partial(self._store.newest, _principal(exchange), limit, status)
        self._ask(exchange, newest, partial(_tell_list, exchange))

    def job(self, exchange: Exchange) -> None:
        """`/jobs/ID`, `/jobs/ID/result` and `/jobs/ID/cancel`.

        Raises:
            RouteNotFoundError: Another path.
            MethodNotAllowedError: Another method.
        """
        job_id, _, what = exchange.path.removeprefix("/jobs/").partition("/")
        methods = {
            "": {"GET": self._status, "DELETE": self._delete},
            "result": {"GET": self._send_result},
            "cancel": {"POST": self._cancel},
        }.get(what)
        if methods is None:
            raise RouteNotFoundError(
                f"There is no {exchange.path!r} here.",
                hint="A job has /jobs/ID, /jobs/ID/result and /jobs/ID/cancel.",
            )
        handle = methods.get("GET" if exchange.method == "HEAD" else exchange.method)
        if handle is None:
            raise MethodNotAllowedError(
                f"{exchange.path} does not take {exchange.method}.", allow=tuple(methods)
            )
        handle(exchange, job_id)

    def _status(self, exchange: Exchange, job_id: str) -> None:
        self._ask(exchange, partial(self._read, exchange, job_id), partial(_tell, exchange))

    def _send_result(self, exchange: Exchange, job_id: str) -> None:
        def read() -> Response:
            record = self._read(exchange, job_id)
            if not record.is_finished:
                return _not_finished(record)
            if record.http_status is None:
                return _without_result(record)
            return read_result(self._store.result(job_id), partial(FileBody, io=self._io))

        self._ask(exchange, read, exchange.respond)

    def _cancel(self, exchange: Exchange, job_id: str) -> None:
        self._end(exchange, job_id, remove=False)

    def _delete(self, exchange: Exchange, job_id: str) -> None:
        self._end(exchange, job_id, remove=True)

    def _end(self, exchange: Exchange, job_id: str, *, remove: bool) -> None:
        """Cancels a job that is not finished; removes one that is, or refuses to cancel it."""

        def done(record: Record) -> None:
            if record.is_finished and record.id in ended_before:
                refused = JobStateError(
                    f"The job {job_id} is over: {record.status}.", hint="DELETE removes it."
                )
                gone = Response(204, b"", [])
                exchange.respond(gone if remove else error_response(refused))
            else:
                _tell(exchange, record)

        def work() -> Record:
            record = self._read(exchange, job_id)
            if record.is_finished:
                ended_before.add(record.id)
                if remove:
                    self._store.remove(job_id)
                return record
            self._runner.end_here(job_id)
            return self._store.cancel(job_id)

        def ours(record: Record) -> None:
            if not record.is_finished and self._runner.cancel(job_id):
                self._ask(exchange, work, partial(self._ended, done))
            else:
                self._ask(exchange, work, done)

        ended_before: set[str] = set()
        self._ask(exchange, partial(self._read, exchange, job_id), ours)

    def _ended(self, done: Callable[[Record], None], record: Record) -> None:
        self._runner.forget(record.id)
        done(record)

    def _read(self, exchange: Exchange, job_id: str) -> Record:
        """On the store's thread: a job of the sender's."""
        record = self._store.read(job_id)
        if record.principal != _principal(exchange):
            raise NotFoundError(f"There is no job {job_id!r}.", hint="GET /jobs lists your jobs.")
        return record

    def _ask(
        self, exchange: Exchange, work: Callable[[], Any], then: Callable[[Any], None]
    ) -> None:
        def done(result: Any, error: BaseException | None) -> None:
            if error is not None:
                exchange.fail(error)
                return
            try:
                then(result)
            except Exception as failure:  # noqa: BLE001 - logged or told by fail()
                exchange.fail(failure)

        self._io.submit(work, done)


def _principal(exchange: Exchange) -> str:
    return exchange.principal.id if exchange.principal is not None else ""


def _record(exchange: Exchange) -> Record:
    key = exchange.header(b"idempotency-key").strip()
    if len(key) > _LONGEST_KEY:
        raise UsageError(
            f"The idempotency key is over {_LONGEST_KEY} characters.", where="idempotency-key"
        )
    now, principal = time(), _principal(exchange)
    target = exchange.target.decode("latin-1")
    return Record(
        id=records.new_id(now),
        status="queued",
        created=now,
        target=target,
        principal=principal,
        fingerprint=records.digest(exchange.target, bytes(exchange.body)) if key else "",
        request_bytes=len(exchange.body),
        key=records.digest(principal.encode(), key.encode()) if key else "",
        deadline=None if exchange.deadline == inf else now + exchange.deadline - monotonic(),
    )


def _request(exchange: Exchange) -> Request:
    return Request(
        method=exchange.method,
        target=exchange.target.decode("latin-1"),
        headers=records.kept_headers(exchange.headers),
    )


def _limit(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < int(text[:9]) <= _MOST_LISTED):
        raise UsageError(f"The limit is not between 1 and {_MOST_LISTED}.", where="limit")
    return int(text)


def _accepted(record: Record) -> Response:
    return Response(
        202,
        orjson.dumps(record.document()),
        [
            JSON,
            ("location", f"/jobs/{record.id}"),
            ("preference-applied", "respond-async"),
            _RETRY,
        ],
    )


def _tell(exchange: Exchange, record: Record) -> None:
    headers = [JSON, ("cache-control", "no-store")]
    if not record.is_finished:
        headers.append(_RETRY)
    exchange.respond(Response(200, orjson.dumps(record.document()), headers))


def _tell_list(exchange: Exchange, found: list[Record]) -> None:
    document = {"jobs": [record.document() for record in found]}
    exchange.respond(Response(200, orjson.dumps(document), [JSON, ("cache-control", "no-store")]))


def _not_finished(record: Record) -> Response:
    error = JobStateError(
        f"The job {record.id} is {record.status}.", hint=f"Ask again, or GET /jobs/{record.id}."
    )
    response = error_response(error)
    response.headers.append(_RETRY)
    return response


def _without_result(record: Record) -> Response:
    if record.status == "cancelled":
        error = JobStateError(
            f"The job {record.id} was cancelled, and has no result.", hint="Send the request again."
        )
        return error_response(error)
    from scoring.errors import ScoringFailedError  # noqa: PLC0415 - seldom

    return error_response(
        ScoringFailedError(
            f"The job {record.id} failed. {record.reason}", hint="Send the request again."
        )
    )

"""A loaded scoring script, from request to response."""

from __future__ import annotations

import contextlib
import json
import logging
import sys
from contextvars import Context, copy_context
from dataclasses import dataclass, replace
from functools import lru_cache
from time import perf_counter
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from scoring.azureml import (
    aliases,
    events,
    failures,
    identity,
    inputs,
    loading,
    logs,
    outputs,
    streams,
    timing,
)
from scoring.azureml.cors import CorsPolicy
from scoring.azureml.swagger import Swagger, UnknownVersionError
from scoring.errors import InputError, UnsupportedMediaTypeError
from scoring.http import Request, Response

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Mapping

    from scoring.azureml.async_streams import AsyncStream
    from scoring.azureml.settings import ScriptSettings
    from scoring.azureml.wsgi import FlaskBridge

_METHODS = {
    "/": ("GET", "HEAD", "OPTIONS"),
    "/score": ("GET", "HEAD", "OPTIONS", "POST"),
    "/swagger.json": ("GET", "HEAD", "OPTIONS"),
}
_NOT_FOUND = (
    "The requested URL was not found on the server. If you entered the URL manually please check "
    "your spelling and try again."
)
_NOT_ALLOWED = "The method is not allowed for the requested URL."
_SCRIPT_FAILED = "An unexpected error occurred in scoring script. Check the logs for more info."
_INTERNAL = "An unexpected internal error occurred. Check the logs for more info."

_HTML = ("Content-Type", "text/html; charset=utf-8")
_JSON = ("Content-Type", "application/json")
_RUN_FAILED = "x-ms-run-function-failed"
_RAN = (_RUN_FAILED, "False")
_FAILED = (_RUN_FAILED, "True")

logger = logging.getLogger("azmlinfsrv")


@dataclass(slots=True)
class _Turn:
    """A request with a path and method that are the script's, while it is answered."""

    request: Request
    picked: Mapping[str, str]
    who: identity.Identity
    begun: float


class EntryScript:
    """A script whose `init()` has run, ready to answer.

    Use `load`. One process holds one script: the contract marks modules, `sys.path`, `print` and
    the environment of the whole process.
    """

    def __init__(self, script: loading.Script, settings: ScriptSettings) -> None:
        self._script = script
        self._settings = settings
        self._strict = settings.strict
        self._read = inputs.reader(script, strict=settings.strict)
        self._dumps = outputs.dumper(strict=settings.strict)
        self._swagger = Swagger(script.declared, settings)
        self._cors = CorsPolicy(settings.cors_origins) if settings.cors_origins else None
        self._bridge: FlaskBridge | None = None
        version = settings.server_version
        self._fixed_headers = [("x-ms-server-version", version)] if version else []
        if "flask" in sys.modules:
            self._flask()

    @property
    def takes_bodies_as_sent(self) -> bool:
        """Whether the script gets compressed bodies compressed, as under Azure's server.

        A raw script has learned there to undo the `Content-Encoding` itself.
        """
        return self._strict or self._script.kind == "raw"

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """Where `run` is `async def`: the loop on which `answer` has to run, not running yet."""
        return self._script.loop

    @classmethod
    def load(cls, settings: ScriptSettings) -> EntryScript:
        """Imports the script, checks it, and calls its `init()`.

        Raises:
            EntryScriptError: The script is missing, is no entry script, or raised anything;
                `detail` then has its own traceback. A server exits with status 3 on this.
        """
        aliases.install()  # A logging.json may name Azure's classes.
        logs.configure(settings)
        return cls(loading.load(settings), settings)

    def swagger(self, version: str) -> dict[str, Any]:
        """The OpenAPI document.

        Args:
            version: `2`, `2.0`, `3`, `3.0` or `3.1`.

        Raises:
            UnknownVersionError: There is none of that version.
        """
        return self._swagger.document(version)

    def handle(self, request: Request) -> Response:
        """Answers one request, on the calling thread; it never raises for what a request holds.

        The answer to HEAD is GET's: the server sends its length and leaves its body out.
        """
        turn = self._begin(request)
        if isinstance(turn, Response):
            return turn
        return self._end(turn, self._answer(turn))

    async def answer(self, request: Request, respond: Callable[[Response], None]) -> None:
        """Answers one request to an `async def run`, on `loop`, beside others.

        It goes on behind the answer for as long as that is streamed. Cancelled, it cancels `run`.

        Args:
            request: What to answer.
            respond: Gets the answer, once.
        """
        from scoring.azureml import async_streams  # noqa: PLC0415  -- for such scripts alone

        turn = self._begin(request)
        if isinstance(turn, Response):
            respond(turn)
        elif request.path != "/score" or turn.who.fault:
            respond(self._end(turn, self._answer(turn)))
        else:
            with self._flask_context(request):
                response = self._end(turn, await self._score_async(turn))
                respond(response)
                if isinstance(response.body, async_streams.AsyncStream):
                    await response.body.feed()

    def _begin(self, request: Request) -> _Turn | Response:
        """What is known of a request before it is answered; the answer where there is no route."""
        begun = perf_counter()
        if request.path.startswith("//"):  # As Werkzeug has it.
            request = replace(request, path=f"/{request.path.lstrip('/')}")
        allowed = _METHODS.get(request.path)
        if allowed is None:
            return _error(404, _NOT_FOUND)
        if request.method not in allowed:
            allow = [] if self._strict else [("Allow", ", ".join(allowed))]
            return _error(405, _NOT_ALLOWED, allow)
        picked = identity.pick(request.headers)
        return _Turn(request, picked, identity.identify(picked, strict=self._strict), begun)

    def _end(self, turn: _Turn, response: Response) -> Response:
        self._finish(response, turn.request, turn.who)
        if self._strict and turn.request.path != "/":
            _log_access(turn.request, response, (perf_counter() - turn.begun) * 1000)
        return response

    def _answer(self, turn: _Turn) -> Response:
        request = turn.request
        if turn.who.fault:
            return _error(431, turn.who.fault)
        try:
            if request.path == "/score":
                return self._score(turn)
            if request.method == "OPTIONS":
                return Response(200, b"", [_HTML, ("Allow", "GET, HEAD, OPTIONS")])
            if request.path == "/":
                return Response(200, b"Healthy", [_HTML])
            return self._describe(request)
        except Exception as error:  # noqa: BLE001  -- logged there
            return _internal(error)

    def _describe(self, request: Request) -> Response:
        versions = parse_qs(request.query, keep_blank_values=True).get("version", ["2"])
        try:
            document = self.swagger(versions[0])
        except UnknownVersionError as error:
            return _error(404, str(error))
        return Response(200, json.dumps(document).encode(), [_JSON, _RAN])

    def _score(self, turn: _Turn) -> Response:
        if self._bridge is None:
            return self._run(turn)
        # A context of its own: a stream goes on in it when this call has returned.
        context = copy_context()
        return context.run(self._run_in_flask, turn, context)

    def _run_in_flask(self, turn: _Turn, context: Context) -> Response:
        with contextlib.ExitStack() as stack:
            stack.enter_context(self._flask_context(turn.request))
            response = self._run(turn)
            if isinstance(response.body, streams.ValueStream):
                response.body.stay_in(context, stack.pop_all().close)
            return response

    def _flask_context(self, request: Request) -> contextlib.AbstractContextManager[object]:
        return contextlib.nullcontext() if self._bridge is None else self._bridge.context(request)

    def _run(self, turn: _Turn) -> Response:
        arguments = self._arguments(turn)
        if isinstance(arguments, Response):
            return arguments
        run = self._script.run if self._strict else self._start
        try:
            result, elapsed_ms = timing.call(run, arguments, self._settings.scoring_timeout_ms)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001  -- sys.exit() in a script ends a request
            return self._failed(error, arguments)
        return self._timed(self._convert(result, turn.request), elapsed_ms)

    def _start(self, **arguments: Any) -> Any:
        return streams.start(self._script.run(**arguments))

    async def _score_async(self, turn: _Turn) -> Response:
        try:
            return await self._run_async(turn)
        except Exception as error:  # noqa: BLE001  -- logged there
            return _internal(error)

    async def _run_async(self, turn: _Turn) -> Response:
        from scoring.azureml import async_streams  # noqa: PLC0415  -- likewise

        arguments = self._arguments(turn)
        if isinstance(arguments, Response):
            return arguments
        begun = perf_counter()
        try:
            async with async_streams.limit(self._settings.scoring_timeout_ms):
                result = await async_streams.start(self._script.run(**arguments))
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            if async_streams.is_cancelled(error):
                raise
            return self._failed(error, arguments)
        elapsed_ms = (perf_counter() - begun) * 1000
        return self._timed(self._convert(result, turn.request), elapsed_ms)

    def _arguments(self, turn: _Turn) -> dict[str, Any] | Response:
        """What `run()` is called with, or the answer where it is not called."""
        request, raw = turn.request, self._script.kind == "raw"
        if not raw and request.method not in {"GET", "POST"}:
            if request.method == "OPTIONS":
                return Response(200, b"", [_HTML, _RAN])
            return _error(405, "Method not allowed")
        try:
            arguments = self._raw_arguments() if raw else self._read_text(request, turn.picked)
        except InputError as error:
            return self._refuse(error)
        except inputs.FormRefusedError as error:
            return _error(error.status, str(error))
        if self._script.wants_headers:
            arguments[loading.HEADERS_PARAMETER] = _request_headers(request)
        return arguments

    def _timed(self, response: Response, elapsed_ms: float) -> Response:
        response.headers.append(("x-ms-run-fn-exec-ms", f"{elapsed_ms:.3f}"))
        return response

    def _read_text(self, request: Request, picked: Mapping[str, str]) -> dict[str, Any]:
        return self._read(request, picked.get("content-type", ""))

    def _raw_arguments(self) -> dict[str, Any]:
        from scoring.azureml.wsgi import current_request  # noqa: PLC0415  -- Flask, if asked for

        return {self._script.parameters[0].name: current_request()}

    def _convert(self, result: Any, request: Request) -> Response:
        if isinstance(result, streams.Started):
            return self._streamed(result, request)
        if "flask" in sys.modules:
            from scoring.azureml import wsgi  # noqa: PLC0415  -- the script has imported Flask

            if wsgi.is_response(result, strict=self._strict):
                response = wsgi.from_flask(result, request)
                if response.status >= 500:  # noqa: PLR2004  -- the server errors of HTTP
                    _replace(response, [_FAILED])
                return response
        return Response(200, self._dumps(result), [_JSON, _RAN])

    def _streamed(self, started: streams.Started, request: Request) -> Response:
        form = events.form(request.header("accept"), started.first)
        timeout_ms = self._settings.scoring_timeout_ms
        body: streams.ValueStream | AsyncStream
        if started.is_async:
            from scoring.azureml.async_streams import AsyncStream  # noqa: PLC0415  -- likewise

            body = AsyncStream(started, form, timeout_ms)
        else:
            body = streams.ValueStream(started, form, timeout_ms)
        return Response(200, body, [*form.headers, _RAN])

    def _failed(self, error: BaseException, arguments: Mapping[str, Any]) -> Response:
        if isinstance(error, TimeoutError if self._strict else timing.ScoringExpired):
            logger.error("Encountered Exception: %s", failures.trace(error))
            message = f"Scoring timeout after {self._settings.scoring_timeout_ms} ms"
            return _error(500, message, [_FAILED])
        if not self._strict:
            bad = failures.bad_input(error, self._script.declared, arguments)
            if bad:
                return self._refuse(bad)
            refusal = failures.http_refusal(error)
            if refusal:
                return _error(*refusal)
        logger.error("Encountered Exception: %s", failures.trace(error))
        return _error(500, _SCRIPT_FAILED, [_FAILED])

    def _refuse(self, error: InputError) -> Response:
        status = 415 if isinstance(error, UnsupportedMediaTypeError) else 400
        if self._strict:
            return _error(status, error.message)
        return Response(
            status, outputs.dumps({"message": error.message} | error.to_dict()), [_JSON, _RAN]
        )

    def _finish(self, response: Response, request: Request, who: identity.Identity) -> None:
        if self._bridge is None and "flask" not in sys.modules:
            response.headers += who.headers  # all others are ours, of other names
        else:
            _replace(response, who.headers)
        response.headers += self._fixed_headers
        if self._cors is not None:
            response.headers += self._cors.headers(request)

    def _flask(self) -> None:
        from scoring.azureml.wsgi import FlaskBridge  # noqa: PLC0415  -- the script imports Flask

        self._bridge = FlaskBridge()


def _error(status: int, message: str, headers: list[tuple[str, str]] | None = None) -> Response:
    more = headers or []
    marked = [] if _FAILED in more else [_RAN]
    body = json.dumps({"message": message}).encode()
    return Response(status, body, [_JSON, *marked, *more])


def _internal(error: Exception) -> Response:
    logger.error("Encountered Exception:", exc_info=error)
    return _error(500, _INTERNAL)


def _replace(response: Response, headers: list[tuple[str, str]]) -> None:
    """Sets headers; a script's own of the same name give way."""
    names = {name.lower() for name, _ in headers}
    kept = [header for header in response.headers if header[0].lower() not in names]
    response.headers = kept + headers


def _request_headers(request: Request) -> dict[str, str]:
    """The headers as Azure's server hands them over: `Title-Case`, repeated ones joined.

    One with an underscore is left out, as there: it could pass for the one with a hyphen.
    """
    headers: dict[str, str] = {}
    for name, value in request.headers:
        if "_" in name:
            continue
        key = _title(name)
        headers[key] = f"{headers[key]},{value}" if key in headers else value
    return headers


@lru_cache(maxsize=1024)
def _title(name: str) -> str:
    return name.title()


def _log_access(request: Request, response: Response, duration_ms: float) -> None:
    path = f"{request.path}?{request.query}" if request.query else request.path
    length = len(response.body) if isinstance(response.body, bytes) else "N/A"
    logger.info("%s %s %d %.3fms %s", request.method, path, response.status, duration_ms, length)

"""The Flask side of the contract, imported only for scripts that use Flask.

A raw `run()` gets Flask's request, and every script that has imported Flask finds its request,
`g` and `current_app` in place, as under Azure's server, which is a Flask application.
"""

from __future__ import annotations

import io
import sys
from typing import TYPE_CHECKING, Any, cast

import flask
from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Response as WerkzeugResponse

from scoring.http import Request, Response

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

# The server frames the message itself.
_FRAMING = frozenset({"content-length", "transfer-encoding", "connection", "date"})

Environ = dict[str, Any]


class FlaskBridge:
    """Puts requests into Flask's context and takes Flask's responses out of it."""

    def __init__(self) -> None:
        self._app = flask.Flask(__name__)
        self._app.add_url_rule(
            "/score",
            endpoint="main.handle_score",
            methods=["GET", "POST", "OPTIONS"],
            provide_automatic_options=False,
        )

    def context(self, request: Request) -> AbstractContextManager[object]:
        """The context in which `flask.request` is this request."""
        return cast("AbstractContextManager[object]", self._app.request_context(environ(request)))


def current_request() -> Any:
    """Flask's stand-in for the request of the context, as Azure's server hands it out."""
    return flask.request


def is_response(value: object, *, strict: bool) -> bool:
    """Whether `run()` returned an answer that passes through as it is."""
    return isinstance(value, flask.Response if strict else WerkzeugResponse)


def read_form(request: Request) -> tuple[tuple[int, str] | None, bytes]:
    """Reads the body as a form.

    Returns:
        Status and reason where Werkzeug refuses it, else None; and the bytes that were no form.
    """
    try:
        return None, flask.Request(environ(request)).data
    except HTTPException as error:
        return (error.code or 500, str(error.description)), b""


def environ(request: Request) -> Environ:
    """The request as WSGI has it."""
    host, _, port = request.header("host", "localhost").partition(":")
    made: Environ = {
        "REQUEST_METHOD": request.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": request.path.encode().decode("latin-1"),
        "QUERY_STRING": request.query,
        "RAW_URI": f"{request.path}?{request.query}" if request.query else request.path,
        "SERVER_NAME": host,
        "SERVER_PORT": port or "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(request.body),
        "wsgi.input_terminated": True,
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": False,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }
    made.update(_header_variables(request.headers))
    if request.body or "CONTENT_LENGTH" in made:
        made["CONTENT_LENGTH"] = str(len(request.body))
    return made


def _header_variables(headers: list[tuple[str, str]]) -> Environ:
    made: Environ = {}
    for name, value in headers:
        if "_" in name:
            continue  # It could pass for the header with a hyphen.
        key = name.upper().replace("-", "_")
        if key not in {"CONTENT_TYPE", "CONTENT_LENGTH"}:
            key = f"HTTP_{key}"
            value = f"{made[key]},{value}" if key in made else value  # noqa: PLW2901
        made[key] = value
    return made


def from_flask(response: WerkzeugResponse, request: Request) -> Response:
    """The answer as a plain value; chunks of an iterable are sent as they come."""
    chunks, status, headers = response.get_wsgi_response(environ(request))
    kept = [(name, value) for name, value in headers if name.lower() not in _FRAMING]
    body: bytes | Iterator[bytes] = cast("Iterator[bytes]", iter(chunks))
    head = request.method == "HEAD"  # Werkzeug gives no chunks out for it.
    if response.is_sequence:
        body = response.get_data() if head else b"".join(cast("Iterator[bytes]", chunks))
    if response.is_sequence or head:
        response.close()
    return Response(int(status.partition(" ")[0]), body, kept)

"""Errors in the protocol's shape: `{"error": sentence}`."""

from __future__ import annotations

import orjson

from scoring.errors import FieldpostError
from scoring.http import Response
from serve.server.status import failure_response as general_response
from serve.server.status import sentence


def failure_response(error: BaseException, request: str) -> Response:
    """The answer to whatever went wrong; what is not in our tree is logged, with its traceback.

    Status and headers are those that the error has on every route.

    Args:
        error: What went wrong.
        request: What was asked, for the log.
    """
    response = general_response(error, request)
    if isinstance(error, FieldpostError):
        response.body = _dump(sentence(error))
    else:
        response.body = _dump("The server failed on this request. Its log says why.")
    return response


def _dump(text: str) -> bytes:
    return orjson.dumps({"error": text})

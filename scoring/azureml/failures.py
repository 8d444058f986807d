"""Whose fault it was that `run()` failed: the sender's, where that can be told for sure.

Azure's server answers 500 to all of it. A request that does not fit the script's own schema, a
body that the script could not read as JSON, and a refusal that the script asked Flask for are the
sender's to mend, and answered with 4xx.
"""

from __future__ import annotations

import contextlib
import inspect
import json
import sys
import traceback
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from scoring.azureml.faults import find_fault
from scoring.errors import InputError, MalformedPayloadError, WrongTypeError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from types import FrameType

_DESERIALISE = "_deserialize_input_argument"
_SCHEMA_MODULE = "inference_schema.schema_decorators"


def bad_input(
    error: BaseException, run: Callable[..., Any], arguments: Mapping[str, Any]
) -> InputError | None:
    """The error to answer with where the request is to blame; None where the script is.

    Args:
        error: What `run()` raised.
        run: As the script declares it.
        arguments: What it was called with.
    """
    if isinstance(error, InputError):
        return error
    if isinstance(error, json.JSONDecodeError):
        malformed = _malformed_body(error, arguments)
        if malformed:
            return malformed
    return _schema_failure(error, run)


def http_refusal(error: BaseException) -> tuple[int, str] | None:
    """Status and reason of a 4xx that the script or Flask's request raised."""
    exceptions = sys.modules.get("werkzeug.exceptions")
    if exceptions is None or not isinstance(error, exceptions.HTTPException):
        return None
    code = error.code or 500
    if 400 <= code < 500:  # noqa: PLR2004  -- the client errors of HTTP
        return code, str(error.description)
    return None


def trace(error: BaseException) -> str:
    """The traceback, for the log."""
    with contextlib.suppress(RecursionError):
        return "".join(traceback.format_exception(error))
    return repr(error)


def _malformed_body(error: json.JSONDecodeError, arguments: Mapping[str, Any]) -> InputError | None:
    """The script called `json.loads` on the very body that came in."""
    if not any(isinstance(a, str) and error.doc == a for a in arguments.values()):
        return None
    if not error.doc:
        return MalformedPayloadError(
            "The body is empty; the scoring script reads it as JSON.", where="$"
        )
    return MalformedPayloadError(
        f"The body could not be decoded as JSON: {error}",
        where=f"line {error.lineno} column {error.colno}",
    )


def _schema_failure(error: BaseException, run: Callable[..., Any]) -> InputError | None:
    frames = list(_deserialising(error, run))
    if not frames:
        return None
    path = _path(frames)
    last = frames[-1].f_locals
    fault = find_fault(last["input_data"], last["param_type"], path)
    if fault is not None:
        return fault
    return WrongTypeError(f"{path} does not fit the script's schema: {error}", where=path)


def _deserialising(error: BaseException, run: Callable[..., Any]) -> Iterator[FrameType]:
    """The frames in which inference-schema converted arguments, before `run` itself began."""
    own_code = getattr(inspect.unwrap(run), "__code__", None)
    trace = error.__traceback__
    while trace is not None:
        frame = trace.tb_frame
        if frame.f_code is own_code:
            return
        if (
            frame.f_code.co_name == _DESERIALISE
            and frame.f_globals.get("__name__") == _SCHEMA_MODULE
        ):
            yield frame
        trace = trace.tb_next


def _path(frames: list[FrameType]) -> str:
    """Where in the payload the innermost conversion was, such as `inputs.images[2]`."""
    path = str(frames[0].f_locals["param_name"])
    for outer, inner in pairwise(frames):
        whole, part = outer.f_locals["input_data"], inner.f_locals["input_data"]
        if isinstance(whole, dict):
            path += f".{inner.f_locals['param_name']}"
        else:
            index = next((i for i, item in enumerate(whole) if item is part), None)
            path += "[?]" if index is None else f"[{index}]"
    return path

"""JSON by the standard library: what other parsers refuse, and what devices without them read."""

from __future__ import annotations

import json
from typing import Any

from scoring.errors import MalformedPayloadError
from scoring.payload.nesting import too_deep

_HINT = 'Send JSON such as {"data": [[1.0, 2.0]]}, in UTF-8.'
_BOM = b"\xef\xbb\xbf"


def loads(body: bytes | bytearray) -> Any:
    """Parses a body; lets through NaN, Infinity and numbers beyond a double, as floats.

    Raises:
        MalformedPayloadError: It is no JSON, not UTF-8, cut off, or holds half a character.
        PayloadTooDeepError: It is nested deeper than any parser should follow.
    """
    if not body.strip():
        raise MalformedPayloadError("The body is empty.", hint=_HINT)
    try:
        value = json.loads(body.removeprefix(_BOM).decode("utf-8"))
    except UnicodeDecodeError as error:
        raise MalformedPayloadError(
            f"The body is not UTF-8: byte {error.start} is {body[error.start]:#04x}.", hint=_HINT
        ) from None
    except json.JSONDecodeError as error:
        raise MalformedPayloadError(
            f"The body is not JSON: {error.msg} at line {error.lineno}, column {error.colno}.",
            hint=_HINT,
            where=f"line {error.lineno}, column {error.colno}",
        ) from None
    except RecursionError:
        raise too_deep() from None
    except ValueError as error:  # whole numbers of more digits than Python converts
        raise MalformedPayloadError(f"The body holds a number that is too long: {error}.") from None
    if b"\\u" in body:
        _require_whole_characters(value)
    return value


def _require_whole_characters(value: Any) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        raise MalformedPayloadError(
            "A string in the body holds half of a surrogate pair, which is no character.",
            hint="Encode the strings as UTF-8, or escape both halves.",
        ) from None

"""JSON as it arrives. Duplicate keys: the last one counts, as in every JSON library of Python."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson

from scoring.errors import MalformedPayloadError, PayloadTooDeepError

_ORJSON_TOO_DEEP = "depth limit"
_HINT = 'Send JSON such as {"data": [[1.0, 2.0]]}, in UTF-8.'
_BOM = b"\xef\xbb\xbf"


@dataclass(slots=True)
class Document:
    """A parsed body.

    Attributes:
        value: Plain Python values; numbers may be NaN or infinite.
        plain: No boolean and nothing that is not finite stands in it.
    """

    value: Any
    plain: bool


def parse(body: bytes | bytearray) -> Document:
    """Parses a body.

    The tokens NaN and Infinity, and numbers beyond a double, are no JSON, but Python's clients send
    them: they are let through as floats, for the model's schema to judge.

    Raises:
        MalformedPayloadError: It is no JSON, not UTF-8, cut off, or holds half a character.
        PayloadTooDeepError: It is nested deeper than any parser should follow.
    """
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        return Document(_parse_leniently(body, error), plain=False)
    # `true` and `false` would pass as 1 and 0 in an array of numbers.
    return Document(value, b"true" not in body and b"false" not in body)


def _parse_leniently(body: bytes | bytearray, reason: orjson.JSONDecodeError) -> Any:
    import json  # noqa: PLC0415 - bodies that orjson refuses are rare

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
    if _ORJSON_TOO_DEEP in str(reason):
        raise too_deep()
    _require_whole_characters(value)
    return value


def _require_whole_characters(value: Any) -> None:
    try:
        _dump(value).encode("utf-8")
    except UnicodeEncodeError:
        raise MalformedPayloadError(
            "A string in the body holds half of a surrogate pair, which is no character.",
            hint="Encode the strings as UTF-8, or escape both halves.",
        ) from None


def _dump(value: Any) -> str:
    import json  # noqa: PLC0415 - as above

    return json.dumps(value, ensure_ascii=False)


def depth(value: Any, limit: int) -> int:
    """How deep lists and objects are nested, counted no further than `limit + 1`."""
    level, found = [value], 0
    while found <= limit:
        level = [part for part in level if isinstance(part, list | dict)]
        if not level:
            break
        found += 1
        level = [inner for part in level for inner in _parts(part)]
    return found


def _parts(value: Any) -> Any:
    return value.values() if isinstance(value, dict) else value


def too_deep(limit: int | None = None) -> PayloadTooDeepError:
    """The error for a body that is nested too deep."""
    allowed = "" if limit is None else f" ({limit} levels are allowed)"
    return PayloadTooDeepError(
        f"The JSON is nested too deep{allowed}.", hint="Send the rows as a list of lists."
    )

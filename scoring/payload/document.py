"""JSON as it arrives. Duplicate keys: the last one counts, as in every JSON library of Python."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson

from scoring.payload.nesting import too_deep

_ORJSON_TOO_DEEP = "depth limit"


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
    from scoring.payload import lenient  # noqa: PLC0415 - bodies that orjson refuses are rare

    value = lenient.loads(body)
    if _ORJSON_TOO_DEEP in str(reason):
        raise too_deep()
    return value

"""Values as bytes of a streamed answer: Server-Sent Events, or plain chunks. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from scoring.azureml import outputs

EVENT_STREAM = "text/event-stream"
_FIELDS = frozenset({"event", "id", "data", "retry"})
_TELLING = frozenset({"event", "data", "retry"})
_LINE_END = re.compile(r"\r\n|\r|\n")


class Form(NamedTuple):
    """How the values of one answer are sent.

    Attributes:
        headers: Of the answer.
        encode: One value as bytes; raises TypeError or ValueError where there are none for it.
        failure: What the client is told where the script fails behind its first value; empty: the
            answer is cut off.
    """

    headers: list[tuple[str, str]]
    encode: Callable[[Any], bytes]
    failure: bytes


def form(accept: str, first: Any) -> Form:
    """The form of an answer.

    Args:
        accept: The client's `Accept`.
        first: The first value; it decides between text, bytes and JSON lines.
    """
    if wants_events(accept):
        headers = [
            ("Content-Type", f"{EVENT_STREAM}; charset=utf-8"),
            ("Cache-Control", "no-cache"),
            ("X-Accel-Buffering", "no"),  # nginx would collect the events
        ]
        return Form(headers, event, _FAILURE)
    if isinstance(first, bytes | bytearray | memoryview):
        return Form([("Content-Type", "application/octet-stream")], _chunk, b"")
    if isinstance(first, str):
        return Form([("Content-Type", "text/plain; charset=utf-8")], _chunk, b"")
    return Form([("Content-Type", "application/x-ndjson")], _line, b"")


def wants_events(accept: str) -> bool:
    """Whether `Accept` names Server-Sent Events, and does not refuse them by `q=0`."""
    for media_range in accept.split(","):
        kind, *parameters = (part.strip().lower() for part in media_range.split(";"))
        if kind == EVENT_STREAM:
            return not any(_is_zero(p[2:]) for p in parameters if p.startswith("q="))
    return False


def _is_zero(quality: str) -> bool:
    return bool(re.fullmatch(r"0(\.0{0,3})?", quality))


def event(value: Any) -> bytes:
    """One event: text as it is, anything else as JSON.

    A dict of nothing but `event`, `id`, `data` and `retry` gives the fields themselves.
    """
    if isinstance(value, Mapping) and _is_fields(value):
        return _fields(value)
    return _data(value) + b"\n"


def _is_fields(value: Mapping[Any, Any]) -> bool:
    return value.keys() <= _FIELDS and not _TELLING.isdisjoint(value)


def _fields(value: Mapping[Any, Any]) -> bytes:
    parts = [
        f"{name}: {_one_line(value[name])}\n".encode("utf-8", "replace")
        for name in ("event", "id", "retry")
        if value.get(name) is not None
    ]
    # Browsers drop an event without data.
    if "data" in value or "event" in value:
        parts.append(_data(value.get("data", "")))
    return b"".join(parts) + b"\n"


def _one_line(value: Any) -> str:
    return _LINE_END.sub(" ", str(value)).replace("\0", "")


def _data(value: Any) -> bytes:
    text = _text(value) if isinstance(value, str | bytes | bytearray | memoryview) else _json(value)
    return "".join(f"data: {line}\n" for line in _LINE_END.split(text)).encode("utf-8", "replace")


def _text(value: str | bytes | bytearray | memoryview) -> str:
    return value if isinstance(value, str) else bytes(value).decode("utf-8", "replace")


def _json(value: Any) -> str:
    return "null" if value is None else outputs.dumps(value).decode()


def _chunk(value: Any) -> bytes:
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    return value.encode("utf-8", "replace") if isinstance(value, str) else _line(value)


def _line(value: Any) -> bytes:
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    return _json(value).encode() + b"\n"


_FAILURE = event(
    {
        "event": "error",
        "data": {"message": "The scoring script failed. Check the logs for more info."},
    }
)

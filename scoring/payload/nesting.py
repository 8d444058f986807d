"""How deep a body is nested."""

from __future__ import annotations

from typing import Any

from scoring.errors import PayloadTooDeepError


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

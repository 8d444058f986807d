"""The arrays in a nested answer, each with a name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Walks dicts, lists and tuples; a single value is `output`, several `output_0` and so on.

    Dicts and named tuples give their own names; nested names are joined with `_`.
    """
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from leaves(item, f"{name}_{key}" if name else str(key))
    elif hasattr(value, "_fields"):
        yield from leaves(dict(zip(value._fields, value, strict=True)), name)
    elif isinstance(value, list | tuple):
        if len(value) == 1 and not name:
            yield from leaves(value[0])
            return
        for index, item in enumerate(value):
            yield from leaves(item, f"{name or 'output'}_{index}")
    elif value is not None:
        yield name or "output", value

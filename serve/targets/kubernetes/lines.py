"""Objects as lines of YAML, for people who compare them: a thousand deployments in a second.

PyYAML represents, serializes and emits; objects are mappings, lists and scalars, and need none of
that. What leaves our hands as a file goes through PyYAML all the same (`export.documents`).
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

_PLAIN = re.compile(r"[A-Za-z/](?:[A-Za-z0-9/._@:-]*[A-Za-z0-9/._@-])?", re.ASCII)
_WORDS = frozenset({"true", "false", "null", "yes", "no", "on", "off", "y", "n"})


def yaml_lines(document: Any) -> list[str]:
    """The lines of a document, keys in their order."""
    return list(_block(document))


def _block(value: Any) -> Iterator[str]:
    if isinstance(value, dict) and value:
        for key, each in value.items():
            yield from _entry(f"{_scalar(key)}:", each)
    elif isinstance(value, list | tuple) and value:
        for each in value:
            head = "- "
            for line in _block(each):
                yield head + line
                head = "  "
    else:
        yield _scalar(value)


def _entry(head: str, value: Any) -> Iterator[str]:
    if isinstance(value, dict) and value:
        yield head
        for line in _block(value):
            yield f"  {line}"
    elif isinstance(value, list | tuple) and value:
        yield head
        yield from _block(value)
    else:
        yield f"{head} {_scalar(value)}"


def _scalar(value: Any) -> str:
    """What could be read as anything but a text is quoted, as JSON does."""
    if isinstance(value, str):
        if _PLAIN.fullmatch(value) and value.lower() not in _WORDS:
            return value
        return json.dumps(value, ensure_ascii=not value.isprintable())
    if isinstance(value, tuple):
        return "[]"
    return json.dumps(value)

"""Takes out of an object what others own of it, as an API names that in conflicts. Pure."""

from __future__ import annotations

import copy
import json
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

    from serve.targets.kubernetes.kinds import Object

_ENTRY = re.compile(r"\[((?:[^\]\"]|\"(?:[^\"\\]|\\.)*\")*)\]")
_KEY = re.compile(r"(\w+)=(\"(?:[^\"\\]|\\.)*\"|[\d.]+|true|false)")


def without(item: Object, fields: Iterable[str]) -> Object:
    """The object without some fields.

    Args:
        item: The object; it stays as it is.
        fields: `.spec.replicas`, `.spec.template.spec.containers[name="server"].image`.
    """
    found = copy.deepcopy(item)
    for field in fields:
        _take_out(found, field)
    return found


def _take_out(value: Any, field: str) -> None:
    """Keys may have dots in them: what the object has decides where one ends."""
    if isinstance(value, dict):
        for key in list(value):
            head = f".{key}"
            if field == head:
                del value[key]
            elif field.startswith((f"{head}.", f"{head}[")):
                _take_out(value[key], field.removeprefix(head))
    elif isinstance(value, list) and (found := _ENTRY.match(field)):
        _take_out_of_list(value, found[1], field[found.end() :])


def _take_out_of_list(items: list[Any], key: str, rest: str) -> None:
    if key.startswith("="):
        items[:] = [each for each in items if each != json.loads(key[1:])]
        return
    wanted = {name: json.loads(text) for name, text in _KEY.findall(key)}
    for entry in list(items):
        if isinstance(entry, dict) and all(entry.get(name) == wanted[name] for name in wanted):
            if rest:
                _take_out(entry, rest)
            else:
                items.remove(entry)

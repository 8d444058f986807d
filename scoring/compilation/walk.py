"""Walks the estimators inside an estimator, whatever holds them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

_CONTAINERS = (list, tuple, dict)


def estimators(model: Any) -> Iterator[Any]:
    """The estimator and all fitted estimators inside it, each once, from the outside in."""
    seen: set[int] = set()
    waiting = [model]
    while waiting:
        value = waiting.pop()
        if isinstance(value, _CONTAINERS) or _is_array_of_objects(value):
            waiting.extend(reversed(_members(value)))
        elif is_estimator(value) and id(value) not in seen:
            seen.add(id(value))
            yield value
            waiting.extend(reversed(list(vars(value).values())))


def is_estimator(value: Any) -> bool:
    """Whether a value is an estimator's instance rather than a class or a plain value."""
    return hasattr(value, "get_params") and hasattr(value, "fit") and not isinstance(value, type)


def _is_array_of_objects(value: Any) -> bool:
    return getattr(value, "dtype", "") == "object" and hasattr(value, "ravel")


def _members(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return list(value.ravel()) if hasattr(value, "ravel") else list(value)

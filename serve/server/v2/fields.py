"""The fields of a request's JSON objects, each checked where it is read. Pure."""

from __future__ import annotations

from typing import Any

from scoring.errors import UnknownInputError, WrongTypeError
from scoring.payload.places import quoted
from scoring.payload.words import kind_of

_SHARED_MEMORY = "shared_memory_region"


def parameters(value: dict[str, Any], path: str) -> dict[str, Any]:
    """The parameters of a request or tensor; those that are not known here change nothing.

    Args:
        value: What has them.
        path: Its place in the request, with a point at the end; empty for the request.

    Raises:
        InputError: They are no object, or ask for shared memory.
    """
    found = value.get("parameters")
    if found is None:
        return {}
    where = f"{path}parameters"
    if not isinstance(found, dict):
        raise WrongTypeError(f"{where} is {kind_of(found)}, not an object.", where=where)
    if _SHARED_MEMORY in found:
        raise UnknownInputError(
            f"{where}: shared memory is not supported here.",
            hint="Send the tensor's data with the request.",
            where=f"{where}.{_SHARED_MEMORY}",
        )
    return found


def flag(given: dict[str, Any], name: str, path: str) -> bool | None:
    """A boolean parameter; None where it is not given.

    Raises:
        WrongTypeError: It is something else.
    """
    value = given.get(name)
    if value is None or isinstance(value, bool):
        return value
    where = f"{path}parameters.{name}"
    raise WrongTypeError(f"{where} is {kind_of(value)}, not a boolean.", where=where)


def count(given: dict[str, Any], name: str, path: str, what: str) -> int | None:
    """A parameter that counts something; None where it is not given.

    Raises:
        WrongTypeError: It is something else, or negative.
    """
    value = given.get(name)
    if value is None or (type(value) is int and value >= 0):
        return value
    where = f"{path}parameters.{name}"
    raise WrongTypeError(f"{where} is {quoted(value)}, not a number of {what}.", where=where)

"""What the text of a CSV cell is, told by the model's schema, not guessed from the cells."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from scoring.errors import MissingValueError, WrongTypeError
from scoring.payload.celltext import to_bool, to_float, to_int
from scoring.payload.places import quoted

if TYPE_CHECKING:
    from scoring.schema import TensorSpec

# What pandas reads as a missing number; in a column of text only an empty cell is one.
_MISSING = frozenset({"", "nan", "na", "n/a", "#n/a", "null", "none", "<na>", "-nan"})
_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?")
_CONSTANTS = {"": None, "true": True, "false": False, "True": True, "False": False}


def value_of(text: str, spec: TensorSpec) -> Any:
    """A cell as JSON would carry it to the model; a missing one is None.

    Raises:
        WrongTypeError: It is no such value.
    """
    if spec.unused:
        return text or None
    if spec.dtype == "string":
        return text or None
    if text.strip().lower() in _MISSING:
        return None
    try:
        return _CONVERT[spec.dtype[0]](text)
    except ValueError as error:
        raise WrongTypeError(f"{quoted(text)} is in it; {error} is wanted.") from None


def required(value: Any, spec: TensorSpec) -> Any:
    """The value, unless it is missing where the model wants one.

    Raises:
        MissingValueError: It is.
    """
    if value is None and not (spec.missing or spec.unused):
        raise MissingValueError(
            "The cell is empty, which the model does not take.",
            hint="Leave such rows out, put a value in its place, or choose --on-error skip.",
        )
    return value


def plain(text: str) -> Any:
    """A cell for a script, which has no schema: what is a number in JSON is one, else text."""
    if _NUMBER.fullmatch(text):
        return int(text) if text.lstrip("-").isdigit() else float(text)
    return _CONSTANTS.get(text, text)


_CONVERT = {"b": to_bool, "i": to_int, "u": to_int, "f": to_float}

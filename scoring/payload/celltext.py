"""What the text of a cell means: a number, a whole number, true or false.

For tables in requests and for datasets in files, so that one and the same text is one and the same
value. Each raises `ValueError` with the words for what the text should have been.
"""

from __future__ import annotations

import math

_TRUE, _FALSE = frozenset({"true", "1"}), frozenset({"false", "0"})


def to_float(text: str) -> float:
    """A number; infinities are some, NaN is none."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if math.isnan(number) or "_" in text:
        raise ValueError("a number")
    return number


def to_int(text: str) -> int | float:
    """A whole number; `3.0`, which pandas makes of a column with missing cells, is one."""
    try:
        return int(text) if "_" not in text else to_float(text)
    except ValueError:
        pass
    try:
        return to_float(text)
    except ValueError:
        raise ValueError("a whole number") from None


def to_bool(text: str) -> bool:
    """A truth value, in words or as 0 and 1."""
    lowered = text.strip().lower()
    if lowered in _TRUE:
        return True
    if lowered in _FALSE:
        return False
    raise ValueError("true or false")

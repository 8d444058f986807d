"""Columns that the model drops may be left out of a table: they are filled with nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scoring.payload.orientation import Oriented


def filled(found: Oriented, unused: Sequence[str]) -> Oriented:
    """The same payload with null in the unused columns that it does not give.

    What has not the form that it should have is left as it is, for those who check it.
    """
    value = found.value
    if found.form == "records":
        blank = dict.fromkeys(unused)
        records = [{**blank, **row} if isinstance(row, dict) else row for row in value]
        return replace(found, value=records)
    if found.form == "named":
        lengths = [len(column) for column in value.values() if isinstance(column, list)]
        blanks = {name: [None] * (lengths[0] if lengths else 0) for name in unused}
        return replace(found, value={**blanks, **value})
    if found.columns is None:
        return found
    absent = [name for name in unused if name not in found.columns]
    return _widened(found, found.columns, absent) if absent else found


def _widened(found: Oriented, columns: list[str], absent: list[str]) -> Oriented:
    width, blanks = len(columns), [None] * len(absent)
    # A row of another length keeps it, so that the message tells the length that was sent.
    if any(not isinstance(row, list) or len(row) != width for row in found.value):
        return found
    rows: list[Any] = [[*row, *blanks] for row in found.value]
    return replace(found, value=rows, columns=[*columns, *absent])

"""The answers to a chunk, as columns of the result; pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from scoring.batch.records import Answer
from scoring.errors import ScoringFailedError

_LEAST = -(2**63)


def answer_columns(outputs: Mapping[str, Any], answers: Sequence[Answer], rows: int) -> list[Any]:
    """One array or list of `rows` values for each answer.

    Args:
        outputs: What the model answered.
        answers: The columns of the result.
        rows: How many were asked.

    Raises:
        ScoringFailedError: The model answered another number of rows.
    """
    return [_column(outputs[answer.output], answer, rows) for answer in answers]


def _column(value: Any, answer: Answer, rows: int) -> Any:
    if len(value) != rows:
        raise ScoringFailedError(
            f"The model answered {len(value)} rows of {answer.output!r} for {rows}."
        )
    if answer.key is not None:
        return [entry.get(answer.key) for entry in value]
    if answer.kind == "json" or not isinstance(value, np.ndarray):
        return value.tolist() if isinstance(value, np.ndarray) else value
    return value[:, answer.index] if answer.index is not None else value.reshape(rows)


def scattered(column: Any, indices: Sequence[int], rows: int) -> list[Any]:
    """A column with None in the rows that were not answered."""
    values = column.tolist() if isinstance(column, np.ndarray) else column
    result: list[Any] = [None] * rows
    for index, value in zip(indices, _native(column, values), strict=True):
        result[index] = value
    return result


def _native(column: Any, values: Sequence[Any]) -> Sequence[Any]:
    """The values with their own precision: a float32 is written as short as it is."""
    if isinstance(column, np.ndarray) and column.dtype.kind == "f" and column.dtype.itemsize < 8:  # noqa: PLR2004
        return list(column)
    return values


def values_of(column: Any) -> list[Any]:
    """A column as values that Python writes as short as their own precision allows."""
    if isinstance(column, np.ndarray):
        return list(_native(column, column.tolist()))
    if hasattr(column, "to_pylist"):  # Arrow's, of a kept column
        return arrow_values(column)
    return list(column)


def arrow_values(column: Any) -> list[Any]:
    """Arrow's values as Python's; as text those of which Python has none.

    Such are years beyond 9999, and nanoseconds where pandas is not installed.
    """
    try:
        return list(column.to_pylist())
    except (ValueError, OverflowError):
        texts = column.cast("string").to_pylist()
    if not str(column.type).startswith("timestamp"):
        return list(texts)
    return [text and text.replace(" ", "T", 1) for text in texts]


def is_missing(value: Any) -> bool:
    """Whether a value is none, or no number."""
    return value is None or (isinstance(value, float | np.floating) and math.isnan(value))


def script_columns(answer: Any, rows: int) -> dict[str, list[Any]]:
    """The columns of what a script answered.

    A list of as many entries as rows, or an object whose lists are that long; of a list of objects
    each key is a column.

    Raises:
        ScoringFailedError: It is neither.
    """
    if isinstance(answer, dict):
        lists = {key: value for key, value in answer.items() if isinstance(value, list)}
        if lists and all(len(value) == rows for value in lists.values()):
            if len(lists) == 1:
                return _entries(next(iter(lists.values())))
            return dict(lists)
    if isinstance(answer, list) and len(answer) == rows:
        return _entries(answer)
    raise ScoringFailedError(
        f"The script answered {_shape(answer)} for {rows} {'row' if rows == 1 else 'rows'}.",
        hint="Let run() return a list with one entry for each row, or an object of such lists.",
    )


def _entries(entries: list[Any]) -> dict[str, list[Any]]:
    if entries and all(isinstance(entry, dict) for entry in entries):
        names = dict.fromkeys(name for entry in entries for name in entry)
        return {name: [entry.get(name) for entry in entries] for name in names}
    return {"": entries}


def _shape(answer: Any) -> str:
    if isinstance(answer, list):
        return f"{len(answer)} entries"
    if isinstance(answer, dict):
        return f"an object with {', '.join(map(repr, list(answer)[:5])) or 'nothing in it'}"
    return type(answer).__name__


def kind_of(values: Sequence[Any]) -> str:
    """The kind of an `Answer` that holds all of some values of JSON."""
    kinds = {type(value) for value in values if value is not None}
    if kinds == {bool}:
        return "bool"
    if kinds and kinds <= {int, float}:
        if float in kinds:
            return "float64"
        return "int64" if all(_LEAST <= v < -_LEAST for v in values if v is not None) else "json"
    return "string" if kinds == {str} else "json"

"""A sample of input in any of the forms that users have, as columns with types."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from scoring.errors import UnknownInputError, UnsupportedModelError, WrongShapeError
from scoring.formats.columns import kind_of
from scoring.runtimes.base import NUMPY_DTYPES
from scoring.runtimes.dependencies import require

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from scoring.schema import DType

MAX_ROWS = 16
_MATRIX = 2


def is_texts(sample: Any) -> bool:
    """Whether the sample is a sequence of strings (texts), or one column of a frame."""
    array = sample if isinstance(sample, np.ndarray) else None
    if array is None and isinstance(sample, list | tuple) and sample:
        return all(isinstance(value, str) for value in sample)
    if array is None and hasattr(sample, "to_numpy") and getattr(sample, "ndim", 0) == 1:
        array = sample.to_numpy()
    return array is not None and array.ndim == 1 and kind_of(array) == "string"


def as_frame(sample: Any, names: Sequence[str], count: int | None) -> Any:
    """The first rows of a sample as a DataFrame with the columns of the model, in its order.

    Args:
        sample: DataFrame, array, nested list, list of dicts, or dict of columns.
        names: The model's own column names, where it has them.
        count: How many columns the model has, where it says.

    Raises:
        WrongShapeError: It is no table, or has another number of columns.
        UnknownInputError: A column of the model is missing.
    """
    pandas = require("pandas", "A sample")
    try:
        frame = sample if isinstance(sample, pandas.DataFrame) else pandas.DataFrame(sample)
    except (ValueError, TypeError) as error:
        raise WrongShapeError(f"The sample is no table: {error}.", where="sample") from error
    frame = frame.head(MAX_ROWS).infer_objects()
    if names and not set(names) & set(frame.columns) and len(frame.columns) == len(names):
        frame = frame.set_axis(list(names), axis=1)
    absent = [str(name) for name in names if name not in frame.columns]
    if absent:
        raise UnknownInputError(
            f"The sample lacks columns of the model: {', '.join(absent[:8])}.",
            hint=f"The model was fitted on: {', '.join(map(str, names))}.",
            where="sample",
        )
    frame = frame[list(names)] if names else frame
    if not len(frame) or (count is not None and len(frame.columns) != count):
        raise WrongShapeError(
            f"The sample has the shape {frame.shape}; the model takes {count} columns.",
            where="sample",
        )
    return frame


def column_kind(frame: Any, position: int) -> DType:
    """The type of a column of a sample.

    Raises:
        UnsupportedModelError: Dates and other types that requests cannot carry.
    """
    column = frame.iloc[:, position]
    if column.dtype.kind in "mMc":
        raise UnsupportedModelError(
            f"The column {column.name!r} has the type {column.dtype}, which requests cannot carry.",
            hint="Give the model strings or numbers, or serve it with a script.",
            where=str(column.name),
        )
    return kind_of(column.to_numpy(dtype=object) if column.dtype.kind == "O" else column.to_numpy())


def column_values(frame: Any, position: int, dtype: DType) -> NDArray[Any]:
    """A column of a sample as an array of shape (rows, 1); missing strings as None."""
    values = frame.iloc[:, position].to_numpy(dtype=object)
    if dtype == "string":
        values = np.array([v if isinstance(v, str) else _text(v) for v in values], dtype=object)
    elif dtype.startswith("float"):
        values = np.array([np.nan if v is None else v for v in values.tolist()], dtype=object)
    column: NDArray[Any] = values.astype(NUMPY_DTYPES[dtype]).reshape(-1, 1)
    return column


def _text(value: Any) -> str | None:
    return None if value is None or value != value else str(value)  # noqa: PLR0124 - NaN

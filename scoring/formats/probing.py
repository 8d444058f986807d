"""Finding out by asking what a model takes and answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from scoring.errors import FieldpostError
from scoring.runtimes.base import NUMPY_DTYPES
from scoring.schema import TensorSpec

if TYPE_CHECKING:
    from collections.abc import Callable

Batch = dict[str, NDArray[Any]]
MAX_FEATURES = 256


def zeros(
    specs: tuple[TensorSpec, ...], rows: int = 1, size: int = 1, texts: dict[str, str] | None = None
) -> Batch:
    """A batch of zeros; free dimensions after the first get `size`, strings a text."""
    return {spec.name: _zeros(spec, rows, size, (texts or {}).get(spec.name, "")) for spec in specs}


def _zeros(spec: TensorSpec, rows: int, size: int, text: str) -> NDArray[Any]:
    shape = [
        dimension if dimension is not None else (rows if axis == 0 else size)
        for axis, dimension in enumerate(spec.shape)
    ]
    return np.full(shape, text if spec.dtype == "string" else 0, dtype=NUMPY_DTYPES[spec.dtype])


def with_missing(
    specs: tuple[TensorSpec, ...], batch: Batch, predict: Callable[[Batch], dict[str, Any]]
) -> tuple[TensorSpec, ...]:
    """The inputs, each told whether the model answers with finite numbers where it is missing."""
    return tuple(
        TensorSpec(s.name, s.dtype, s.shape, missing=_takes_holes(s, batch, predict)) for s in specs
    )


def _takes_holes(
    spec: TensorSpec, batch: Batch, predict: Callable[[Batch], dict[str, Any]]
) -> bool:
    probe = with_holes(spec, batch)
    if probe is None:
        return False
    # Most models take no holes, which the first row tells; of a large model each row costs time.
    first = {name: array[:1] if array.ndim else array for name, array in probe.items()}
    try:
        return (spec.shape[:1] != (None,) or finite(predict(first))) and finite(predict(probe))
    except FieldpostError:
        return False


def with_holes(spec: TensorSpec, batch: Batch) -> Batch | None:
    """The batch with one feature of this input missing in each row; None for integers and bools."""
    if spec.dtype != "string" and not spec.dtype.startswith("float"):
        return None
    holes = _holes(spec, batch[spec.name])
    if spec.shape[:1] != (None,):
        return batch | {spec.name: holes}
    others = {name: _stretched(array, len(holes)) for name, array in batch.items()}
    return others | {spec.name: holes}


def _holes(spec: TensorSpec, array: NDArray[Any]) -> NDArray[Any]:
    """One feature missing in each row of a matrix; of anything else, everything."""
    hole = None if spec.dtype == "string" else np.nan
    if array.ndim != 2 or spec.shape[0] is not None:  # noqa: PLR2004 - rows of features
        return np.full_like(array, hole)
    width = array.shape[1]
    rows = np.repeat(array[:1], min(width, MAX_FEATURES), axis=0)
    rows[np.arange(len(rows)), np.linspace(0, width - 1, len(rows)).astype(int)] = hole
    return rows


def _stretched(array: NDArray[Any], rows: int) -> NDArray[Any]:
    return array if len(array) == rows else np.repeat(array[:1], rows, axis=0)


def finite(answer: dict[str, Any]) -> bool:
    """Whether there are numbers in an answer and all are finite; labels alone prove nothing."""
    arrays = [_numbers(value) for value in answer.values()]
    floats = [array for array in arrays if array.dtype.kind == "f"]
    return bool(floats) and all(bool(np.isfinite(array).all()) for array in floats)


def _numbers(value: Any) -> NDArray[Any]:
    if isinstance(value, list):  # a list of maps
        return np.asarray([list(row.values()) for row in value], dtype=np.float64)
    return np.asarray(value)

"""Makes the example request of a schema: a body for `POST /score` that the model answers."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from scoring.runtimes.base import NUMPY_DTYPES
from scoring.schema import ModelSchema, TensorSpec

Inputs = Mapping[str, NDArray[Any]]

MAX_VALUES = 10_000
_DIGITS = 4
_FREE_SIZES = (1, 8, 32, 224)


def with_example(
    schema: ModelSchema, batches: Iterable[Inputs], predict: Callable[[Inputs], Any]
) -> ModelSchema:
    """Adds an example to a schema.

    Args:
        schema: Of the form that will serve.
        batches: Rows to take the example from, the best first; made-up ones are tried after them.
        predict: Answers a batch, or raises: the example is one that was answered.

    Returns:
        The schema; without an example where no row was answered, or where one is too large to be
        read.
    """
    for batch in (*batches, *_made_up(schema)):
        row = _first_complete_row(batch, schema)
        if sum(array.size for array in row.values()) > MAX_VALUES:
            continue
        row = {name: _round(array) for name, array in row.items()}
        try:
            predict(_typed(row, schema))
        except Exception:  # noqa: BLE001, S112 - a model may raise anything; try the next row
            continue
        return msgspec.structs.replace(schema, example=body(row, schema))
    return schema


def body(row: Inputs, schema: ModelSchema) -> dict[str, Any]:
    """The request body for a batch: `data` for one matrix or a table, else `inputs` by name."""
    if schema.layout == "table":
        used = [spec.name for spec in schema.inputs if not spec.unused]
        columns = {name: _plain(row[name].reshape(-1)) for name in used}
        rows = zip(*columns.values(), strict=True)
        return {"data": [dict(zip(columns, values, strict=True)) for values in rows]}
    if len(schema.inputs) == 1:
        return {"data": _plain(row[schema.inputs[0].name])}
    return {"inputs": {spec.name: _plain(row[spec.name]) for spec in schema.inputs}}


def _plain(array: NDArray[Any]) -> Any:
    """Nested lists for JSON, with null for what is missing."""
    values = array.astype(object)
    flat = [_json_value(value) for value in values.flat]
    values.reshape(-1)[:] = flat
    return values.tolist()


def _json_value(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _first_complete_row(batch: Inputs, schema: ModelSchema) -> dict[str, NDArray[Any]]:
    """One row of a batch, with nothing missing where there is such a row.

    An input whose first dimension is fixed is left whole.
    """
    batched = [spec.name for spec in schema.inputs if spec.shape[:1] == (None,)]
    rows = min((len(batch[name]) for name in batched), default=1)
    complete = (
        row
        for row in range(rows)
        if not any(_has_missing(batch[name][row : row + 1]) for name in batched)
    )
    chosen = next(complete, 0)
    return {
        spec.name: batch[spec.name][chosen : chosen + 1]
        if spec.name in batched
        else batch[spec.name]
        for spec in schema.inputs
    }


def _has_missing(array: NDArray[Any]) -> bool:
    if array.dtype == object:
        return any(value is None for value in array.flat)
    return array.dtype.kind == "f" and not bool(np.isfinite(array).all())


def _typed(row: Inputs, schema: ModelSchema) -> dict[str, NDArray[Any]]:
    return {spec.name: row[spec.name].astype(NUMPY_DTYPES[spec.dtype]) for spec in schema.inputs}


def _round(array: NDArray[Any]) -> NDArray[Any]:
    """Numbers as a person would write them."""
    if array.dtype.kind != "f":
        return array
    digits = [float(f"{value:.{_DIGITS}g}") for value in array.flat]
    return np.array(digits, dtype=np.float64).reshape(array.shape)


def _made_up(schema: ModelSchema) -> Iterable[Inputs]:
    """Batches for models that tell nothing of their data: small numbers, in a few free sizes."""
    for size in _FREE_SIZES:
        shapes = [_shape(spec, size) for spec in schema.inputs]
        if sum(math.prod(shape) for shape in shapes) <= MAX_VALUES:
            pairs = zip(schema.inputs, shapes, strict=True)
            yield {spec.name: _made_up_input(spec, shape) for spec, shape in pairs}
        if all(None not in spec.shape[1:] for spec in schema.inputs):
            return


def _shape(spec: TensorSpec, size: int) -> list[int]:
    return [
        (1 if axis == 0 else size) if given is None else given
        for axis, given in enumerate(spec.shape)
    ]


def _made_up_input(spec: TensorSpec, shape: list[int]) -> NDArray[Any]:
    dtype = NUMPY_DTYPES[spec.dtype]
    if spec.dtype == "string":
        return np.full(shape, "a", dtype=dtype)
    if dtype.kind in "iub":
        return np.ones(shape, dtype=dtype)
    # numpy's own generators would be loaded for this alone, and are two megabytes.
    draw = random.Random(0).gauss  # noqa: S311 - nothing secret
    drawn = [round(draw(0, 1), 2) for _ in range(math.prod(shape))]
    return np.array(drawn, dtype=dtype).reshape(shape)

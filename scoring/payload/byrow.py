"""Answers as TensorFlow Serving, KServe and MLflow give them: a value or an object for each row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from scoring.schema import ModelSchema


def by_row(outputs: Mapping[str, Any], schema: ModelSchema) -> Any:
    """The value of `predictions`.

    A classifier's prediction is its label, as `predict()` gives it. Of a model with several outputs
    that all are its answer, each row is an object with one entry for each of them.

    Args:
        outputs: One array, or list of dicts, for each output.
        schema: The model's.

    Returns:
        An array, a list, or (where outputs have no common number of rows) the outputs by name.
    """
    first = schema.outputs[0].name
    if is_single(schema):
        return outputs[first]
    sizes = {_rows(value) for value in outputs.values()}
    if len(sizes) > 1 or None in sizes:
        return dict(outputs)
    return [dict(zip(outputs, row, strict=True)) for row in zip(*outputs.values(), strict=True)]


def by_column(outputs: Mapping[str, Any], schema: ModelSchema) -> Any:
    """The only output, or all of them by name: the answer to inputs that came as columns."""
    return outputs[schema.outputs[0].name] if is_single(schema) else dict(outputs)


def is_single(schema: ModelSchema) -> bool:
    """Whether the first output is the whole prediction: the others say how sure it is."""
    return len(schema.outputs) == 1 or bool(schema.classes)


def _rows(value: Any) -> int | None:
    """How many rows an output has; None for a single value."""
    return None if getattr(value, "ndim", 1) == 0 else len(value)

"""Whether a compiled form treats values that the model was not trained on as the original does.

An encoder of scikit-learn may refuse an unknown category; its graph may then answer anything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scoring.compilation.compare import compare
from scoring.compilation.draw import UNKNOWN
from scoring.errors import ScoringError
from scoring.schema import ModelSchema, TensorSpec

Inputs = Mapping[str, NDArray[Any]]
Predict = Callable[[Inputs], Mapping[str, Any]]

_MAX_COLUMNS = 64
_NUMBER = 7654321
_FRACTION = 0.25


def disagreement(
    schema: ModelSchema, row: Inputs, original: Predict, compiled: Predict, tolerance: float
) -> str:
    """Asks both forms for a row with one unknown value, for each column in turn.

    Args:
        schema: Of the original.
        row: One row that the original answers.
        original: Answers, or raises a `ScoringError`.
        compiled: Likewise.
        tolerance: See `compile_model`.

    Returns:
        A sentence on the first column where they differ; empty where they do not.
    """
    for spec, column, probe in _probes(schema, row):
        expected, found = _asked(original, probe), _asked(compiled, probe)
        if expected is None:
            if found is not None:
                return f"The compiled form answers to {column}, which the original refuses."
        elif spec.dtype.startswith("float"):
            # How far numbers may lie from the training range is not known here.
            continue
        elif found is None:
            return f"The compiled form refuses {column}, which the original answers."
        elif not compare(schema, expected, found).within(tolerance):
            return f"The compiled form answers otherwise to {column}."
    return ""


def _asked(predict: Predict, row: Inputs) -> Mapping[str, Any] | None:
    try:
        return predict(row)
    except ScoringError:
        return None


def _probes(
    schema: ModelSchema, row: Inputs
) -> Iterator[tuple[TensorSpec, str, dict[str, NDArray[Any]]]]:
    for spec in schema.inputs:
        value = _unknown(spec)
        if value is None:
            continue
        for index in range(min(row[spec.name].size, _MAX_COLUMNS)):
            changed = row[spec.name].copy()
            changed.reshape(-1)[index] = value
            yield spec, _named(schema, spec, index), {**row, spec.name: changed}


def _unknown(spec: TensorSpec) -> Any:
    if spec.unused or spec.dtype == "bool":
        return None
    if spec.dtype == "string":
        return UNKNOWN
    if spec.dtype.startswith("float"):
        return _NUMBER + _FRACTION
    return min(_NUMBER, int(np.iinfo(spec.dtype).max))


def _named(schema: ModelSchema, spec: TensorSpec, index: int) -> str:
    if schema.layout == "table":
        return f"an unknown value of {spec.name!r}"
    if index < len(schema.features):
        return f"an unknown value of {schema.features[index]!r}"
    return f"an unknown value in column {index}"

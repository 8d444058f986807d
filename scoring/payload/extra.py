"""Columns beside those of a model, left out: MLflow's clients send whole frames, labels and all.

Only where nothing is missing: a name that is misspelt stays an error.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from scoring.schema import ModelSchema


def without_extra(value: Any, schema: ModelSchema) -> Any:
    """The same payload without the columns that the model does not know.

    What has not the form that it should have is left as it is, for those who check it.

    Args:
        value: A list of records, an object of columns, or pandas' split form.
        schema: The model's.
    """
    if isinstance(value, dict):
        if isinstance(value.get("columns"), list) and isinstance(value.get("data"), list):
            return _split(value, schema)
        keep = _filter(value, schema)
        return value if keep is None else {name: value[name] for name in value if keep(name)}
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return [_record(row, schema) for row in value]
    return value


def _record(row: Any, schema: ModelSchema) -> Any:
    keep = _filter(row, schema) if isinstance(row, dict) else None
    return row if keep is None else {name: row[name] for name in row if keep(name)}


def _split(value: dict[str, Any], schema: ModelSchema) -> dict[str, Any]:
    columns, rows = value["columns"], value["data"]
    keep = _filter(columns, schema)
    if keep is None or any(not isinstance(r, list) or len(r) != len(columns) for r in rows):
        return value
    kept = [number for number, name in enumerate(columns) if keep(name)]
    return {
        **value,
        "columns": [columns[number] for number in kept],
        "data": [[row[number] for number in kept] for row in rows],
    }


def _filter(given: Iterable[Any], schema: ModelSchema) -> Callable[[Any], bool] | None:
    """What tells the model's columns from others; None where all are its own, or one is missing."""
    names = {name for name in given if isinstance(name, str)}
    known = {spec.name for spec in schema.inputs}
    needed = {spec.name for spec in schema.inputs if not spec.unused}
    if schema.layout == "tensors" and len(known) == 1 and not needed <= names:
        known = needed = set(schema.features)
    return known.__contains__ if needed and needed <= names else None

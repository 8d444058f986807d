"""Labelled rows from files: the tables that people train on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scoring.errors import TrainingDataError, WrongTypeError
from scoring.quantum.circuit import LABELS
from scoring.quantum.encoding import as_table, check_finite
from scoring.sample import read_sample

_ROW_KEYS, _LABEL_KEYS = ("X", "x", "data", "features"), ("y", "labels", "target", "label")


@dataclass(frozen=True, eq=False)
class Labelled:
    """Rows with their labels.

    Attributes:
        rows: The shape (samples, features).
        labels: Whole numbers or strings, of the shape (samples,).
        features: The columns' names, where they have some.
    """

    rows: NDArray[np.float64]
    labels: NDArray[Any]
    features: tuple[str, ...] = ()

    def part(self, places: NDArray[np.intp]) -> Labelled:
        """Some of the samples."""
        return Labelled(self.rows[places], self.labels[places], self.features)


def read_labelled(path: Path, label: str = "") -> Labelled:
    """Reads labelled rows.

    Args:
        path: A table (CSV, JSON, Parquet, NPY) with a column of labels, or an `.npz` file (or JSON
            object) with rows as `X` and labels as `y`.
        label: The labels' column: its name, or its place where columns have no names (negative
            from the end); by default the last one.

    Raises:
        ModelNotFoundError: It cannot be read.
        MalformedPayloadError: Its content is not what its name says.
        TrainingDataError: It is no table with a column of labels.
        WrongTypeError: A feature is no number.
        MissingValueError: A feature is missing or infinite.
    """
    found = _labelled(read_sample(Path(path)), label)
    if not len(found.rows):
        raise TrainingDataError(f"{path} has no rows.", where=str(path))
    check_finite(found.rows)
    return found


def _labelled(content: Any, label: str) -> Labelled:
    if hasattr(content, "columns"):
        content = {str(name): content[name].to_numpy() for name in content.columns}
    if isinstance(content, list) and content and isinstance(content[0], Mapping):
        content = _columns(content)
    if isinstance(content, Mapping):
        return _pair(content, label) or _named(content, label)
    table = np.asarray(content, dtype=object)
    if table.ndim != 2 or table.shape[1] < 2:  # noqa: PLR2004
        raise TrainingDataError(
            f"The data have the shape {table.shape}; rows of features with a label are needed."
        )
    place = _place(label, table.shape[1])
    return Labelled(_rows(np.delete(table, place, axis=1)), _labels(table[:, place]))


def _columns(records: list[Mapping[str, Any]]) -> dict[str, list[Any]]:
    names = list(records[0])
    return {name: [record.get(name) for record in records] for name in names}


def _pair(content: Mapping[str, Any], label: str) -> Labelled | None:
    """Rows and labels that lie beside each other, as in an .npz file."""
    rows = next(
        (content[key] for key in _ROW_KEYS if key in content and np.ndim(content[key]) > 1), None
    )
    keys = (label,) if label else _LABEL_KEYS
    labels = next((content[key] for key in keys if key in content), None)
    if rows is None or labels is None:
        return None
    if len(rows) != len(labels):
        raise TrainingDataError(f"{len(labels)} labels were given for {len(rows)} rows.")
    return Labelled(_rows(rows), _labels(labels))


def _named(content: Mapping[str, Any], label: str) -> Labelled:
    name = label or list(content)[-1]
    if name not in content:
        raise TrainingDataError(
            f"There is no column {name!r}; there are {', '.join(map(str, content))}.",
            hint="Name the column of the labels: --label NAME.",
        )
    features = tuple(key for key in content if key != name)
    if not features:
        raise TrainingDataError(
            f"The data have one column, {name!r}: labels and no features.",
            hint="Commas separate the columns of a .csv file.",
        )
    columns = [_column(key, content[key]) for key in features]
    return Labelled(_rows(np.stack(columns, axis=1), features), _labels(content[name]), features)


def _column(name: str, values: Any) -> NDArray[Any]:
    found = np.asarray(values)
    if found.dtype.kind in "mM":  # as objects they would be whole numbers
        raise _no_number(f"The column {name!r}", found[0].astype(str).item(), 0)
    return found.astype(object)


def _place(label: str, width: int) -> int:
    try:
        place = int(label) if label else -1
    except ValueError:
        raise TrainingDataError(
            f"There is no column {label!r}: the columns have no names.",
            hint="Give its place: --label 0 is the first, --label -1 the last.",
        ) from None
    if not -width <= place < width:
        raise TrainingDataError(f"There is no column {place}; there are {width}.")
    return place % width


def _rows(values: Any, names: Sequence[str] = ()) -> NDArray[np.float64]:
    table = np.asarray(values)
    if table.dtype == object:
        table = np.where(table == None, np.nan, table)  # noqa: E711 - elementwise
    try:
        return as_table(table)
    except WrongTypeError:
        if not np.iscomplexobj(table):  # of which `float` would drop half, with a warning
            _check_numbers(table, names)
        raise


def _check_numbers(table: NDArray[Any], names: Sequence[str]) -> None:
    """Raises `WrongTypeError` at the first value that is no number, with the column's name."""
    for (row, *inner), value in np.ndenumerate(table):
        try:
            float(value)
        except (TypeError, ValueError) as error:
            column = repr(names[inner[0]]) if names else f"{inner[0] if inner else 0}"
            raise _no_number(f"The column {column}", value, row) from error


def _no_number(what: str, value: object, row: int) -> WrongTypeError:
    return WrongTypeError(
        f"{what} has {value!r} in row {row}, which is no number.",
        hint="If these are the labels, name their column: --label COLUMN. Leave out other columns "
        "of text, or make numbers of them.",
    )


def _labels(values: Any) -> NDArray[Any]:
    """Labels as whole numbers where all are, else as strings."""
    found = [value.item() if hasattr(value, "item") else value for value in values]
    for place, value in enumerate(found):
        if value is None or value == "" or (isinstance(value, float) and not np.isfinite(value)):
            raise TrainingDataError(f"The label of row {place} is missing.", where=f"[{place}]")
        if not isinstance(value, str | int | float):
            raise TrainingDataError(f"{value!r} is no label.", where=f"[{place}]")
        if isinstance(value, float) and value != int(value):
            raise TrainingDataError(
                f"The label of row {place} is {value!r}: labels are whole numbers or words.",
                hint="Name the column of the labels, if this is another: --label COLUMN.",
                where=f"[{place}]",
            )
    if all(not isinstance(value, str) and value == int(value) for value in found):
        return _whole([int(value) for value in found])
    return np.array([str(value) for value in found])


def _whole(labels: list[int]) -> NDArray[np.int64]:
    for place, label in enumerate(labels):
        if not -LABELS <= label < LABELS:
            raise TrainingDataError(
                f"The label of row {place} is {label}: whole numbers have 64 bits here.",
                hint="Make words of such labels.",
                where=f"[{place}]",
            )
    return np.array(labels, dtype=np.int64)

"""Samples of a model's inputs: read from files, and turned into arrays by the model's schema."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scoring.errors import (
    MalformedPayloadError,
    MissingDependencyError,
    MissingValueError,
    ModelNotFoundError,
    UnknownInputError,
    UnsupportedMediaTypeError,
    WrongShapeError,
    WrongTypeError,
)
from scoring.runtimes.base import NUMPY_DTYPES
from scoring.schema import ModelSchema, TensorSpec

_WRAPPERS = ("data", "inputs", "instances", "dataframe_records", "dataframe_split", "Inputs")
_SPLIT_KEYS = {"columns", "data", "index"}
_SHOWN = 5


def read_sample(path: Path) -> Any:
    """Reads sample inputs from a file; no file that it reads can run code.

    JSON may hold rows, records, pandas' `split` orientation, columns by name, or any of these below
    `data` or `inputs`. JSON lines hold a row or a record each. A CSV file's first line names the
    columns unless it holds numbers.

    Args:
        path: A `.json`, `.jsonl`, `.csv`, `.npy`, `.npz` or `.parquet` file.

    Returns:
        A list of rows or of records, an array, a dictionary of columns or arrays, or a DataFrame:
        what `to_inputs` takes.

    Raises:
        ModelNotFoundError: The file does not exist or cannot be read.
        UnsupportedMediaTypeError: The name has none of these endings.
        MalformedPayloadError: The content is not what the ending says.
        MissingDependencyError: Reading `.parquet` needs pandas and pyarrow.
    """
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise UnsupportedMediaTypeError(
            f"A sample cannot be read from {path.name!r}.",
            hint=f"Give a file that ends in one of {', '.join(_READERS)}.",
            where=str(path),
        )
    try:
        return reader(path)
    except OSError as error:
        raise ModelNotFoundError(
            f"The sample {path} cannot be read: {error.strerror or error}.",
            hint="Check the path given as sample.",
            where=str(path),
        ) from error
    except (ValueError, TypeError, EOFError, RecursionError, csv.Error) as error:
        raise MalformedPayloadError(
            f"The sample {path.name} is not valid {path.suffix.lstrip('.')}: {error}.",
            where=str(path),
        ) from error


def _read_json(path: Path) -> Any:
    return _unwrapped(json.loads(path.read_text(encoding="utf-8-sig")))


def _unwrapped(document: Any) -> Any:
    """Takes off the envelopes of request bodies, and turns `split` into records."""
    if not isinstance(document, dict):
        return document
    if {"columns", "data"} <= set(document) <= _SPLIT_KEYS:
        names = [str(name) for name in document["columns"]]
        return [dict(zip(names, row, strict=True)) for row in document["data"]]
    if len(document) == 1 and next(iter(document)) in _WRAPPERS:
        inner = next(iter(document.values()))
        return _unwrapped(inner) if isinstance(inner, dict | list) else document
    return document


def _read_json_lines(path: Path) -> Any:
    lines = path.read_text(encoding="utf-8-sig").splitlines()
    return [_unwrapped(json.loads(line)) for line in lines if line.strip()]


def _read_csv(path: Path) -> Any:
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = [row for row in csv.reader(file) if row]
    if not rows:
        raise ValueError("it is empty")
    uneven = next((number for number, row in enumerate(rows, 1) if len(row) != len(rows[0])), 0)
    if uneven:
        raise ValueError(f"line {uneven} has another number of fields than the first")
    if any(_number(cell) is not None for cell in rows[0]):
        return np.array([_column(list(column)) for column in zip(*rows, strict=True)], object).T
    columns = zip(*rows[1:], strict=True) if len(rows) > 1 else ((),) * len(rows[0])
    return {name: _column(list(column)) for name, column in zip(rows[0], columns, strict=True)}


def _column(cells: list[str]) -> list[Any]:
    """Cells as numbers or truth values where all of a column are; empty ones as None."""
    filled = [cell for cell in cells if cell != ""]
    for parse in (_truth, _number):
        if filled and all(parse(cell) is not None for cell in filled):
            return [None if cell == "" else parse(cell) for cell in cells]
    return [None if cell == "" else cell for cell in cells]


def _truth(cell: str) -> bool | None:
    return {"true": True, "false": False}.get(cell.lower())


def _number(cell: str) -> int | float | None:
    for kind in (int, float):
        try:
            return kind(cell)
        except ValueError:
            continue
    return None


def _read_npy(path: Path) -> Any:
    with path.open("rb") as file:
        return np.load(file, allow_pickle=False)


def _read_npz(path: Path) -> Any:
    import zipfile  # noqa: PLC0415 - late: rarely needed

    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except zipfile.BadZipFile as error:
        raise ValueError(str(error)) from error
    return next(iter(arrays.values())) if len(arrays) == 1 else arrays


def _read_parquet(path: Path) -> Any:
    try:
        import pandas as pd  # noqa: PLC0415 - late: only this needs pandas

        return pd.read_parquet(path)
    except ImportError as error:
        raise MissingDependencyError(
            f"Reading {path.name} needs pandas and pyarrow: {error}.",
            hint="Install pandas and pyarrow, or give the sample as .csv or .json.",
        ) from error


_READERS: dict[str, Callable[[Path], Any]] = {
    ".json": _read_json,
    ".jsonl": _read_json_lines,
    ".csv": _read_csv,
    ".npy": _read_npy,
    ".npz": _read_npz,
    ".parquet": _read_parquet,
}


def to_inputs(sample: Any, schema: ModelSchema) -> dict[str, NDArray[Any]]:
    """Turns a sample into the arrays that a model's `predict` takes.

    Args:
        sample: An array, a DataFrame, a list of rows or of records, a dictionary of columns or of
            whole inputs, or a tuple of arrays in the order of the inputs. Columns that the model
            does not know are left out where columns have names.
        schema: The model's.

    Returns:
        One array for each input, of its element type and rank.

    Raises:
        WrongShapeError: The shape is not the model's, or there are no rows.
        WrongTypeError: A value is not of the input's type.
        MissingValueError: A value is missing where the model cannot take that.
        UnknownInputError: A column or an input is missing.
    """
    names = [spec.name for spec in schema.inputs]
    columns = _named_columns(sample, schema)
    if schema.layout == "table":
        parts = columns if columns is not None else _positional(sample, names)
        arrays = {name: _vertical(_pick(parts, name)) for name in names}
    elif len(names) == 1 and not (columns is not None and names[0] in columns):
        arrays = {names[0]: _matrix(sample, columns, schema)}
    elif columns is not None:
        arrays = {name: _pick(columns, name) for name in names}
    elif isinstance(sample, tuple) and len(sample) == len(names):
        arrays = dict(zip(names, sample, strict=True))
    else:
        raise WrongShapeError(
            f"The model has {len(names)} inputs; the sample is {_kind(sample)}.",
            hint=f"Give a dictionary (or an .npz file) with {_listed(names)}.",
        )
    result = {spec.name: _array(arrays[spec.name], spec) for spec in schema.inputs}
    _require_rows(result)
    return result


def _named_columns(sample: Any, schema: ModelSchema) -> Mapping[str, Any] | None:
    """The sample as a dictionary of columns, where its columns have names."""
    if hasattr(sample, "columns") and hasattr(sample, "to_numpy"):
        if not all(isinstance(name, str) for name in sample.columns):
            return None
        return {name: sample[name].to_numpy() for name in sample.columns}
    if isinstance(sample, Mapping):
        return {str(name): value for name, value in sample.items()}
    if isinstance(sample, list) and sample and all(isinstance(row, Mapping) for row in sample):
        known = {spec.name for spec in schema.inputs} | set(schema.features) | set(sample[0])
        return {
            name: [row.get(name) for row in sample]
            for name in sorted(known)
            if any(name in row for row in sample)
        }
    return None


def _pick(columns: Mapping[str, Any], name: str) -> Any:
    if name not in columns:
        raise UnknownInputError(
            f"The sample has no {name!r}; it has {_listed(list(columns))}.",
            hint=f"Give the sample a column or input called {name!r}.",
            where=name,
        )
    return columns[name]


def _positional(sample: Any, names: list[str]) -> dict[str, Any]:
    """Columns by position, of rows without names."""
    rows = _object_matrix(sample)
    if rows.shape[1] != len(names):
        raise WrongShapeError(
            f"The model has {len(names)} columns; the sample's rows have {rows.shape[1]}.",
            hint=f"Give rows with {_listed(names)}, in this order.",
        )
    return {name: rows[:, index] for index, name in enumerate(names)}


def _object_matrix(sample: Any) -> NDArray[Any]:
    if hasattr(sample, "to_numpy"):
        sample = sample.to_numpy()
    elif hasattr(sample, "toarray"):
        sample = sample.toarray()
    array = sample if isinstance(sample, np.ndarray) else _from_list(sample, object)
    if array.ndim == 1:
        array = array.reshape(1, -1)
    if array.ndim != 2:  # noqa: PLR2004
        raise WrongShapeError(
            f"The sample has {array.ndim} dimensions; rows and columns are needed."
        )
    return array


def _matrix(sample: Any, columns: Mapping[str, Any] | None, schema: ModelSchema) -> Any:
    """The one input of a model: from named columns by the features, else as it stands."""
    if columns is None or not columns:
        return sample
    names = list(schema.features)
    if not names and (hasattr(sample, "columns") or isinstance(sample, list | Mapping)):
        names = list(sample.columns) if hasattr(sample, "columns") else list(_first(sample))
    parts = [_from_list(_pick(columns, name), object) for name in names]
    if len(parts) == 1 and len(schema.inputs[0].shape) == 1:
        return parts[0].reshape(-1)
    if len({part.shape for part in parts}) > 1:
        raise WrongShapeError("The sample's columns are not all of one length.")
    return np.stack(parts, axis=-1)


def _first(sample: Any) -> Any:
    return sample[0] if isinstance(sample, list) else sample


def _vertical(values: Any) -> Any:
    """A column as shape (rows, 1)."""
    array = values if isinstance(values, np.ndarray) else _from_list(values, object)
    return array.reshape(-1, 1) if array.ndim <= 1 else array


def _array(values: Any, spec: TensorSpec) -> NDArray[Any]:
    """One input in its element type and rank."""
    if hasattr(values, "to_numpy"):
        values = values.to_numpy()
    elif hasattr(values, "toarray"):
        values = values.toarray()
    if not isinstance(values, np.ndarray):
        values = _from_list(values, object)
    if values.ndim == len(spec.shape) - 1:
        values = values[np.newaxis]
    _require_shape(values, spec)
    return _strings(values, spec) if spec.dtype == "string" else _numbers(values, spec)


def _from_list(values: Any, dtype: Any) -> NDArray[Any]:
    """An array of nested lists; those that are not rectangular are refused."""
    if isinstance(values, str | bytes | Mapping) or not isinstance(values, Sequence | np.ndarray):
        values = [values] if isinstance(values, str | int | float) else values
    array = np.array(values, dtype=dtype)
    if any(isinstance(value, list | tuple) for value in array.flat):
        raise WrongShapeError(
            "The sample's rows are not all of one length.",
            hint="Give every row the same number of values.",
        )
    return array


def _require_shape(values: NDArray[Any], spec: TensorSpec) -> None:
    fits = len(values.shape) == len(spec.shape) and all(
        wanted is None or wanted == given
        for wanted, given in zip(spec.shape, values.shape, strict=True)
    )
    if not fits:
        wanted = ", ".join("any" if size is None else str(size) for size in spec.shape)
        raise WrongShapeError(
            f"Input {spec.name!r} has shape {values.shape}; the model takes ({wanted}).",
            hint="Give the sample in the shape that the model was trained on.",
            where=spec.name,
        )


def _require_rows(inputs: Mapping[str, NDArray[Any]]) -> None:
    counts = {len(array) for array in inputs.values() if array.ndim}
    if 0 in counts:
        raise WrongShapeError("The sample has no rows.", hint="Give at least one row.")


def _strings(values: NDArray[Any], spec: TensorSpec) -> NDArray[Any]:
    result = np.empty(values.shape, dtype=object)
    for position, value in enumerate(values.flat):
        if spec.unused:
            result.flat[position] = None if _is_missing(value) else str(value)
            continue
        if _is_missing(value):
            _require_missing(spec)
            result.flat[position] = None
        elif isinstance(value, str):
            result.flat[position] = str(value)
        else:
            raise _wrong_type(spec, value)
    return result


def _is_missing(value: Any) -> bool:
    """None, NaN, and what pandas has for a missing value."""
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    return isinstance(value, float | np.floating) and math.isnan(value)


def _require_missing(spec: TensorSpec) -> None:
    if not spec.missing:
        raise MissingValueError(
            f"A value of {spec.name!r} is missing, which the model cannot take.",
            hint="Leave rows with missing values out of the sample.",
            where=spec.name,
        )


def _numbers(values: NDArray[Any], spec: TensorSpec) -> NDArray[Any]:
    target = NUMPY_DTYPES[spec.dtype]
    if values.dtype == object:
        values = _plain(values, spec)
    if values.dtype.kind not in "biuf":
        raise _wrong_type(spec, values.flat[0] if values.size else values.dtype)
    if values.dtype.kind == "f" and np.isnan(values).any():
        _require_missing(spec)
    if target.kind in "iub" and values.dtype != target:
        _require_exact(values, target, spec)
    with np.errstate(over="ignore"):
        return values.astype(target)


def _plain(values: NDArray[Any], spec: TensorSpec) -> NDArray[Any]:
    """An array of Python objects as one of numbers; missing ones as NaN."""
    flat: list[Any] = []
    for value in values.flat:
        if _is_missing(value):
            _require_missing(spec)
            flat.append(float("nan"))
        elif isinstance(value, bool | int | float | np.number | np.bool_):
            flat.append(value)
        else:
            raise _wrong_type(spec, value)
    return np.array(flat).reshape(values.shape) if flat else np.zeros(values.shape)


def _require_exact(values: NDArray[Any], target: np.dtype[Any], spec: TensorSpec) -> None:
    """Whole numbers (truth values) that the type can hold, nothing else."""
    with np.errstate(invalid="ignore"):
        exact = values.astype(target) == values
    if not exact.all():
        raise _wrong_type(spec, values[~exact].flat[0])


def _wrong_type(spec: TensorSpec, value: Any) -> WrongTypeError:
    shown = value.item() if isinstance(value, np.generic) else value
    return WrongTypeError(
        f"Input {spec.name!r} takes {spec.dtype}; the sample has {shown!r:.60}.",
        hint="Give values of the type that the model was trained on.",
        where=spec.name,
    )


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(repr(str(name)) for name in list(names)[:_SHOWN])
    rest = len(names) - _SHOWN
    return f"{shown} and {rest} more" if rest > 0 else shown or "nothing"


def _kind(sample: Any) -> str:
    shape = getattr(sample, "shape", None)
    return f"an array of shape {shape}" if shape is not None else f"a {type(sample).__name__}"

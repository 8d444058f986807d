"""From the rows of a chunk to the arrays that the model gets: those that a request would give it.

Whole columns are converted where nothing is doubtful in them; else each row by itself, as the
server does it, so that a row which the model does not take is found and told.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from scoring.batch.cells import required, value_of
from scoring.batch.chunks import Chunk
from scoring.batch.signature import Fit
from scoring.errors import InputError
from scoring.payload.codec import Codec
from scoring.payload.document import Document
from scoring.runtimes.base import NUMPY_DTYPES
from scoring.schema import ModelSchema, TensorSpec

if TYPE_CHECKING:
    from numpy.typing import NDArray

Inputs = dict[str, "NDArray[Any]"]
Broken = dict[int, InputError]

_PLACE = re.compile(
    r"^data\[0\](?:\[(?P<index>\d+)\]|\.(?P<name>\w+))?(?: \(column '(?P<column>[^']*)'\))?"
)
_EXACT = 2**53


class Decoder:
    """Decodes for one model and one dataset.

    Args:
        schema: The model's.
        fitted: Which columns go to it, and how.
    """

    def __init__(self, schema: ModelSchema, fitted: Fit) -> None:
        self._schema, self._fitted = schema, fitted
        self._codec = Codec(schema)
        self._names = list(fitted.names)
        self._whole = fitted.mode == "columns" and not any(s.unused for s in schema.inputs)

    def decode(self, chunk: Chunk) -> tuple[Inputs, Broken]:
        """The arrays of a chunk's rows, without those that are broken.

        Args:
            chunk: Rows that were read.

        Returns:
            The arrays (none where no row is left), and by their index the rows left out.
        """
        inputs = self._at_once(chunk) if self._whole else None
        return (inputs, {}) if inputs is not None else self._one_by_one(chunk)

    def _at_once(self, chunk: Chunk) -> Inputs | None:
        try:
            columns = [
                _column(chunk, name, spec)
                for name, spec in zip(self._fitted.columns, self._fitted.specs, strict=True)
            ]
        except (InputError, ValueError, TypeError, OverflowError):
            return None
        found = [column for column in columns if column is not None]
        if len(found) < len(columns) or not found:
            return None
        if self._schema.layout == "table":
            names = (spec.name for spec in self._fitted.specs)
            made = {
                name: _settled(column, spec)
                for name, column, spec in zip(names, found, self._fitted.specs, strict=True)
            }
            if any(array is None for array in made.values()):
                return None
            return {n: a.reshape(-1, 1) for n, a in made.items() if a is not None}
        spec = self._schema.inputs[0]
        matrix = _settled(np.stack(found, axis=1), spec)
        return None if matrix is None else {spec.name: matrix}

    def _one_by_one(self, chunk: Chunk) -> tuple[Inputs, Broken]:
        broken: Broken = {}
        parts: list[Inputs] = []
        for number in range(len(chunk)):
            try:
                parts.append(self._row(chunk.select([number])))
            except InputError as error:
                broken[number] = _told(error, self._fitted)
        if not parts:
            return {}, broken
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}, broken

    def _row(self, chunk: Chunk) -> Inputs:
        values = [chunk.values(name)[0] for name in self._fitted.columns]
        if chunk.text:
            values = [
                _cell(text, name, spec)
                for text, name, spec in zip(
                    values, self._fitted.columns, self._fitted.specs, strict=True
                )
            ]
        data: dict[str, Any]
        if self._fitted.mode == "named":
            data = {"data": [dict(zip(self._names, values, strict=True))]}
        elif self._names:
            data = {"columns": self._names, "data": [values]}
        else:
            data = {"data": [values]}
        return self._codec.decode_document(Document(data, plain=False)).inputs


def _column(chunk: Chunk, name: str, spec: TensorSpec) -> NDArray[Any] | None:
    """A column as an array; None where it needs a closer look."""
    array = chunk.array(name)
    if array is not None:
        return array if spec.dtype[0] in "iuf" else None
    values = chunk.values(name)
    if chunk.text:
        return _text_column(values, spec)
    kinds = set(map(type, values))
    if spec.missing:
        kinds.discard(type(None))
    if spec.dtype == "string":
        return _objects(values) if kinds <= {str} else None
    if spec.dtype == "bool":
        return np.array(values, dtype=bool) if kinds == {bool} and None not in values else None
    if kinds == {int} and None not in values:
        return np.array(values)
    return np.array(values, dtype=np.float64) if kinds <= {int, float} else None


def _text_column(cells: Sequence[str], spec: TensorSpec) -> NDArray[Any] | None:
    if spec.dtype == "string":
        if "" not in cells:
            return _objects(cells)
        return _objects([cell or None for cell in cells]) if spec.missing else None
    if spec.dtype[0] not in "iuf" or any("_" in cell for cell in cells):
        return None
    if spec.dtype[0] == "f":
        return _float_column(cells, missing=spec.missing)
    return np.array(list(map(int, cells)))


def _float_column(cells: Sequence[str], *, missing: bool) -> NDArray[Any]:
    if missing and "" in cells:
        cells = [cell or "nan" for cell in cells]
    return np.array(list(map(float, cells)))


def _objects(values: Sequence[Any]) -> NDArray[Any]:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def _settled(array: NDArray[Any], spec: TensorSpec) -> NDArray[Any] | None:
    """An array in the model's own type; None where a value does not fit, or may not."""
    dtype = NUMPY_DTYPES[spec.dtype]
    if dtype.kind in "Ob":
        return array if array.dtype.kind == dtype.kind else None
    if array.dtype.kind not in "iuf":
        return None
    if dtype.kind == "f":
        with np.errstate(over="ignore"):
            made = array.astype(dtype, copy=False)
        fine = ~np.isinf(made) if spec.missing else np.isfinite(made)
        return made if fine.all() else None
    if array.dtype.kind == "f":
        whole = (array == np.trunc(array)) & (np.abs(array) < _EXACT)
        if not whole.all():
            return None
        array = array.astype(np.int64)
    limits = np.iinfo(dtype)
    if not array.size or int(array.min()) < limits.min or int(array.max()) > limits.max:
        return None
    return array.astype(dtype, copy=False)


def _cell(text: str, name: str, spec: TensorSpec) -> Any:
    try:
        return required(value_of(text, spec), spec)
    except InputError as error:
        message = f"Column {name!r}: {error.message}"
        raise type(error)(message, hint=error.hint, where=name) from None


def _told(error: InputError, fitted: Fit) -> InputError:
    """An error of a row that was decoded by itself, told of the dataset's own column."""
    found = _PLACE.match(error.message)
    if found is None or not found.group():
        return error
    column = found["column"] or found["name"] or ""
    if not column and found["index"] and int(found["index"]) < len(fitted.columns):
        column = fitted.columns[int(found["index"])]
    elif column in fitted.names:
        column = fitted.columns[fitted.names.index(column)]
    subject = f"Column {column!r}" if column else "The row"
    message = subject + error.message[found.end() :]
    return type(error)(message, hint=error.hint, where=column)


def rows_of(inputs: Mapping[str, NDArray[Any]], indices: Sequence[int]) -> Inputs:
    """Some rows of decoded arrays."""
    return {name: array[list(indices)] for name, array in inputs.items()}

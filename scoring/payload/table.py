"""CSV as `DataFrame.to_csv()` writes it, to the rows of a model.

What a cell is, is told by the model's schema, not guessed from the cells: a column of strings keeps
its leading zeros, and a number that is none is found at its line.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from scoring.errors import MalformedPayloadError, MissingValueError, WrongShapeError, WrongTypeError
from scoring.payload.celltext import to_bool, to_float, to_int
from scoring.payload.document import Document
from scoring.payload.places import quoted
from scoring.schema import TensorSpec

if TYPE_CHECKING:
    from scoring.schema import ModelSchema

_HINT = "Send a header line and one line for each row, as DataFrame.to_csv(index=False) writes it."
_MATRIX_RANK = 2
# What pandas reads as a missing number; in a column of text only an empty cell is one.
_MISSING = frozenset({"", "nan", "na", "n/a", "#n/a", "null", "none", "<na>", "-nan"})

Cell = Callable[[str], Any]


def parse(body: bytes | bytearray, schema: ModelSchema) -> Document:
    """Reads a body of CSV as a payload in pandas' split form.

    Args:
        body: UTF-8, with or without a byte order mark; the first line names the columns.
        schema: The model's: its columns, or the one matrix that it takes.

    Raises:
        InputError: It is no such text, or a cell is not what its column takes; says the line.
    """
    lines = _lines(body)
    columns = _header(lines)
    if _has_index(columns, schema):
        columns, lines = columns[1:], ((number, line[1:]) for number, line in lines)
    specs = _specs(columns, schema)
    cells = [_cell(spec) for spec in specs]
    rows = [
        _row(line, number, columns, cells) for number, line in lines if line or len(columns) == 1
    ]
    if not rows:
        raise WrongShapeError("The CSV has a header and no rows.", hint=_HINT)
    plain = all(spec.dtype not in {"bool", "string"} and not spec.missing for spec in specs)
    return Document({"columns": columns, "data": rows}, plain)


def _lines(body: bytes | bytearray) -> Iterator[tuple[int, list[str]]]:
    """The records, each with the line on which it ends."""
    try:
        text = bytes(body).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise MalformedPayloadError(
            f"The CSV is not UTF-8: byte {error.start} is {body[error.start]:#04x}.",
            hint="Save it as UTF-8.",
        ) from None
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        for line in reader:
            yield reader.line_num, line
    except csv.Error as error:
        where = f"line {reader.line_num}"
        raise MalformedPayloadError(
            f"The CSV cannot be read at {where}: {error}.", hint=_HINT, where=where
        ) from None


def _header(lines: Iterator[tuple[int, list[str]]]) -> list[str]:
    _, columns = next(lines, (0, []))
    if not columns:
        raise MalformedPayloadError("The CSV is empty.", hint=_HINT)
    return columns


def _has_index(columns: Sequence[str], schema: ModelSchema) -> bool:
    """Whether the first column is the index that `to_csv()` writes if it is not told otherwise."""
    names = {spec.name for spec in schema.inputs} | set(schema.features)
    return len(columns) > 1 and not columns[0] and "" not in names


def _specs(columns: Sequence[str], schema: ModelSchema) -> list[TensorSpec]:
    """What each column takes; those of a matrix all take the same."""
    # Unknown columns are named by the codec, or left out; until then their cells are text.
    text = TensorSpec("", "string", (None, 1), missing=True)
    if schema.layout == "table":
        known: Mapping[str, TensorSpec] = {spec.name: spec for spec in schema.inputs}
        by_order = dict(zip(map(str, range(len(columns))), schema.inputs, strict=False))
        return [known.get(name, by_order.get(name, text)) for name in columns]
    spec = schema.inputs[0]
    if len(schema.inputs) > 1 or len(spec.shape) != _MATRIX_RANK:
        raise WrongShapeError(
            "CSV has rows of columns, which this model's inputs are not.",
            hint='Send JSON: {"inputs": {name: […]}}.',
        )
    named = set(schema.features) <= set(columns) if schema.features else False
    return [text if named and name not in schema.features else spec for name in columns]


def _row(line: list[str], number: int, columns: Sequence[str], cells: Sequence[Cell]) -> list[Any]:
    line = line or [""]  # an empty line is an empty cell where there is one column
    if len(line) != len(cells):
        raise WrongShapeError(
            f"Line {number} has {len(line)} {'cell' if len(line) == 1 else 'cells'}; "
            f"the header has {len(cells)}.",
            hint="Put cells with commas in them into quotation marks.",
            where=f"line {number}",
        )
    try:
        return [cell(text) for cell, text in zip(cells, line, strict=True)]
    except ValueError:
        raise _wrong_cell(line, number, columns, cells) from None


def _wrong_cell(
    line: Sequence[str], number: int, columns: Sequence[str], cells: Sequence[Cell]
) -> MissingValueError | WrongTypeError:
    """The error of the first cell of a line that has one."""
    for column, cell, text in zip(columns, cells, line, strict=True):
        try:
            cell(text)
        except ValueError as error:
            where = f"line {number}, column {column!r}"
            if _is_missing(text):
                return MissingValueError(
                    f"The cell at {where} is empty, which the model does not take.",
                    hint="Leave such rows out, or put a value in its place.",
                    where=where,
                )
            return WrongTypeError(
                f"The cell at {where} is {quoted(text)}; {error} is wanted.", where=where
            )
    raise AssertionError("a line without a wrong cell was refused")


def _cell(spec: TensorSpec) -> Cell:
    """What makes a value of the text of a cell; it raises `ValueError` with what is wanted."""
    if spec.unused:
        return lambda text: text or None
    if spec.dtype == "string":
        return _optional(str, "") if spec.missing else _text
    kind = {"b": to_bool, "i": to_int, "u": to_int, "f": to_float}[spec.dtype[0]]
    return _optional(kind) if spec.missing else kind


def _is_missing(text: str) -> bool:
    return text.strip().lower() in _MISSING


def _optional(kind: Cell, *missing: str) -> Cell:
    """A cell that may be missing: one of the given texts, or of those that pandas knows."""

    def cell(text: str) -> Any:
        if text in missing if missing else _is_missing(text):
            return None
        return kind(text)

    return cell


def _text(text: str) -> str:
    if not text:
        raise ValueError("text")
    return text

"""The parts of a result: Parquet, CSV as pandas reads it, JSON Lines."""

from __future__ import annotations

import base64
import csv
import datetime as dt
import decimal
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
import orjson

from scoring.batch.blocks import is_missing, values_of
from scoring.batch.records import Format
from scoring.errors import ScoringFailedError

_OPTIONS = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS
_GROUP_ROWS = 100_000
_BLOCK = 1 << 20


class Writer(Protocol):
    """Writes one part."""

    def write(self, columns: Sequence[Any]) -> None:
        """Appends rows, given as one array or list for each column."""
        ...

    def close(self) -> None:
        """Writes what is left."""
        ...


def writer(format_: Format, path: Path, kinds: Mapping[str, str], arrow: Any = None) -> Writer:
    """A writer of a part.

    Args:
        format_: Of the result.
        path: Of the new file.
        kinds: Name to kind of the columns; see `scoring.batch.records.Answer`.
        arrow: Name to Arrow type, for columns of the kind `arrow`.
    """
    if format_ == "parquet":
        return ParquetWriter(path, kinds, arrow or {})
    if format_ == "csv":
        return CsvWriter(path, list(kinds))
    return JsonWriter(path, list(kinds))


class CsvWriter:
    """CSV with a header; a missing value is an empty cell.

    Args:
        path: Of the new file.
        names: Of the columns.
    """

    def __init__(self, path: Path, names: Sequence[str]) -> None:
        self._file = path.open("w", encoding="utf-8", newline="")
        self._rows = csv.writer(_Lines(self._file), lineterminator="\r\n")
        self._rows.writerow(names)

    def write(self, columns: Sequence[Any]) -> None:
        """See `Writer`."""
        cells = [[_cell(value) for value in values_of(column)] for column in columns]
        self._rows.writerows(zip(*cells, strict=True))

    def close(self) -> None:
        """See `Writer`."""
        self._file.close()


class _Lines:
    """Ends lines as pandas does.

    Python's writer quotes a carriage return, at which readers end a line, only where its own lines
    end in one.

    Args:
        file: To write to.
    """

    def __init__(self, file: IO[str]) -> None:
        self._write = file.write

    def write(self, line: str, /) -> int:
        """Writes one line."""
        return self._write(f"{line[:-2]}\n")


def _cell(value: Any) -> Any:
    if isinstance(value, str):
        return value
    if is_missing(value):
        return ""
    if isinstance(value, list | dict):
        return dumps(value).decode()
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, dt.date | dt.time):
        return value.isoformat()
    return str(value)


class JsonWriter:
    """One object for each row.

    Args:
        path: Of the new file.
        names: Of the columns.
    """

    def __init__(self, path: Path, names: Sequence[str]) -> None:
        self._file = path.open("wb")
        self._names = list(names)

    def write(self, columns: Sequence[Any]) -> None:
        """See `Writer`."""
        for row in zip(*map(values_of, columns), strict=True):
            self._file.write(dumps(dict(zip(self._names, row, strict=True))) + b"\n")

    def close(self) -> None:
        """See `Writer`."""
        self._file.close()


def dumps(value: Any) -> bytes:
    """A value as JSON; numbers that JSON does not have as null."""
    try:
        return orjson.dumps(value, _plain, _OPTIONS)
    except TypeError:  # a whole number of more than 64 bits
        import json  # noqa: PLC0415 - rare

        return json.dumps(value, default=_plain, ensure_ascii=False).encode()


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, dt.date | dt.time):  # those of pandas, which has nanoseconds
        return value.isoformat()
    if isinstance(value, dt.timedelta):
        return value.total_seconds()
    if isinstance(value, decimal.Decimal):
        return str(value)
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} has no form in JSON")


class ParquetWriter:
    """Parquet with types that every part has in common.

    Args:
        path: Of the new file.
        kinds: Name to kind of the columns.
        arrow: Name to Arrow type, for columns of the kind `arrow`.
    """

    def __init__(self, path: Path, kinds: Mapping[str, str], arrow: Mapping[str, Any]) -> None:
        from scoring.batch.parquet import need  # noqa: PLC0415 - pyarrow

        parquet = need("A result in Parquet")
        self._kinds = dict(kinds)
        types = [(name, arrow.get(name) or arrow_type(kind)) for name, kind in kinds.items()]
        import pyarrow as pa  # noqa: PLC0415 - there with the module above

        self._schema = pa.schema(types)
        self._file = parquet.ParquetWriter(str(path), self._schema)
        self._waiting: list[Any] = []
        self._rows = 0

    def write(self, columns: Sequence[Any]) -> None:
        """See `Writer`; rows are gathered to groups.

        Raises:
            ScoringFailedError: A value is not of its column's type.
        """
        import pyarrow as pa  # noqa: PLC0415 - loaded already

        arrays = [
            _arrow(column, field, self._kinds[field.name])
            for column, field in zip(columns, self._schema, strict=True)
        ]
        batch = pa.RecordBatch.from_arrays(arrays, schema=self._schema)
        self._waiting.append(batch)
        self._rows += batch.num_rows
        if self._rows >= _GROUP_ROWS:
            self._flush()

    def close(self) -> None:
        """See `Writer`."""
        self._flush()
        self._file.close()

    def _flush(self) -> None:
        import pyarrow as pa  # noqa: PLC0415 - loaded already

        if self._waiting:
            self._file.write_table(pa.Table.from_batches(self._waiting))
        self._waiting, self._rows = [], 0


def arrow_type(kind: str) -> Any:
    """The Arrow type of a kind: nested values and such of scripts stand as JSON text."""
    import pyarrow as pa  # noqa: PLC0415 - loaded already

    if kind in {"json", "string"}:
        return pa.string()
    return pa.bool_() if kind == "bool" else pa.from_numpy_dtype(np.dtype(kind))


def _arrow(column: Any, field: Any, kind: str) -> Any:
    import pyarrow as pa  # noqa: PLC0415 - loaded already

    if isinstance(column, pa.Array):
        return column.cast(field.type) if column.type != field.type else column
    if isinstance(column, np.ndarray) and column.dtype.kind in "iuf":
        return pa.array(column, type=field.type)
    values = column.tolist() if isinstance(column, np.ndarray) else list(column)
    if kind == "json":
        values = [None if value is None else dumps(value).decode() for value in values]
    values = [value.item() if isinstance(value, np.generic) else value for value in values]
    try:
        return pa.array(values, type=field.type)
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        raise ScoringFailedError(
            f"The column {field.name!r} of the result is {field.type}, as its first rows were, "
            f"and then holds another: {error}.",
            hint="Write JSON Lines (--output-format jsonl), where each value has its own type.",
        ) from error


def join(format_: Format, parts: Iterator[IO[bytes]], path: Path) -> None:
    """Puts parts behind each other, in their order, into one new file."""
    if format_ == "parquet":
        _join_parquet(parts, path)
        return
    with path.open("wb") as file:
        for number, part in enumerate(parts):
            with part:
                if format_ == "csv" and number:
                    _skip_header(part)
                while block := part.read(_BLOCK):
                    file.write(block)


def _skip_header(part: IO[bytes]) -> None:
    """Reads past the header of a part, which may have line ends in its names."""
    header = part.readline()
    while header.count(b'"') % 2:
        line = part.readline()
        if not line:
            return
        header += line


def _join_parquet(parts: Iterator[IO[bytes]], path: Path) -> None:
    from scoring.batch.parquet import need  # noqa: PLC0415 - pyarrow

    parquet = need("A result in Parquet")
    file = None
    try:
        for part in parts:
            with part:
                opened = parquet.ParquetFile(part)
                file = file or parquet.ParquetWriter(str(path), opened.schema_arrow)
                for batch in opened.iter_batches(batch_size=_GROUP_ROWS):
                    file.write_batch(batch)
    finally:
        if file is not None:
            file.close()

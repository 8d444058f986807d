"""Rows as a reader gives them: as many as the model gets at once, each with its place.

A row that cannot be read has its place, too, and an error instead of values.
"""

from __future__ import annotations

import base64
import datetime as dt
import decimal
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from scoring.batch.blocks import arrow_values
from scoring.errors import InputError, UnknownInputError

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Chunk(Protocol):
    """Some rows of one file.

    Attributes:
        places: The number of each row's line (text) or row (Parquet) in its file, from 1.
        broken: By their index, why rows cannot be read.
        text: The values are the text of cells.
    """

    places: Sequence[int]
    broken: Mapping[int, InputError]
    text: bool

    def __len__(self) -> int: ...

    def values(self, name: str) -> list[Any]:
        """A column, None where it is missing; of rows that are not broken.

        Raises:
            UnknownInputError: A row has no such column.
        """
        ...

    def kept(self, name: str) -> Any:
        """A column as it is passed on: Arrow's of Parquet, else a list; None where broken."""
        ...

    def array(self, name: str) -> NDArray[Any] | None:
        """A column of numbers without a missing one, where it is at hand as an array."""
        ...

    def select(self, indices: Sequence[int]) -> Chunk:
        """Some of the rows, in the order of the indices."""
        ...


class RowChunk:
    """Rows of text formats.

    Args:
        rows: Lists of cells (CSV), or objects or lists (JSON); None for a broken one.
        places: The number of each one's line.
        columns: The names of what stands in a list.
        broken: See `Chunk`.
        text: See `Chunk`.
    """

    def __init__(
        self,
        rows: Sequence[Any],
        places: Sequence[int],
        columns: Sequence[str],
        broken: Mapping[int, InputError],
        *,
        text: bool,
    ) -> None:
        self.rows, self.places, self.broken, self.text = rows, places, broken, text
        self._columns = columns
        self._index = {name: number for number, name in enumerate(columns)}

    def __len__(self) -> int:
        return len(self.rows)

    def values(self, name: str) -> list[Any]:
        """See `Chunk`."""
        if self.text:
            number = self._index[name]
            return [row[number] for row in self.rows]
        return [self._value(row, name) for row in self.rows]

    def kept(self, name: str) -> list[Any]:
        """See `Chunk`."""
        number = self._index.get(name, -1)
        if self.text:
            return [None if row is None else row[number] for row in self.rows]
        return [
            row.get(name)
            if isinstance(row, dict)
            else row[number]
            if isinstance(row, list) and 0 <= number < len(row)
            else None
            for row in self.rows
        ]

    def array(self, name: str) -> NDArray[Any] | None:  # noqa: ARG002 - as `Chunk` has it
        """See `Chunk`."""
        return None

    def select(self, indices: Sequence[int]) -> RowChunk:
        """See `Chunk`."""
        broken = {n: self.broken[i] for n, i in enumerate(indices) if i in self.broken}
        rows = [self.rows[i] for i in indices]
        places = [self.places[i] for i in indices]
        return RowChunk(rows, places, self._columns, broken, text=self.text)

    def _value(self, row: Any, name: str) -> Any:
        if isinstance(row, dict):
            return row.get(name)  # what is not there is null, which many writers leave out
        try:
            return row[self._index[name]]
        except (KeyError, IndexError):
            raise UnknownInputError(f"The row has no column {name!r}.", where=name) from None


class ArrowChunk:
    """Rows of Parquet.

    Args:
        batch: A `pyarrow.RecordBatch`.
        first: The number of its first row.
        places: Of rows that do not follow each other.
    """

    text = False

    def __init__(self, batch: Any, first: int = 1, places: Sequence[int] | None = None) -> None:
        self._batch = batch
        self.broken: Mapping[int, InputError] = {}
        self.places = range(first, first + batch.num_rows) if places is None else places

    def __len__(self) -> int:
        return int(self._batch.num_rows)

    def values(self, name: str) -> list[Any]:
        """See `Chunk`."""
        return [_plain(value) for value in arrow_values(self._column(name))]

    def kept(self, name: str) -> Any:
        """See `Chunk`."""
        return self._column(name)

    def array(self, name: str) -> NDArray[Any] | None:
        """See `Chunk`."""
        column = self._column(name)
        kind = str(column.type)
        if column.null_count or not kind.startswith(
            ("int", "uint", "float", "double", "halffloat")
        ):
            return None
        array: NDArray[Any] = column.to_numpy(zero_copy_only=False)
        return array

    def select(self, indices: Sequence[int]) -> ArrowChunk:
        """See `Chunk`."""
        import pyarrow as pa  # noqa: PLC0415 - loaded already

        batch = self._batch.take(pa.array(indices, pa.int64()))
        return ArrowChunk(batch, places=[self.places[i] for i in indices])

    def _column(self, name: str) -> Any:
        return self._batch.column(self._batch.schema.get_field_index(name))


def _plain(value: Any) -> Any:
    """A value of Arrow's as JSON would carry it."""
    if isinstance(value, decimal.Decimal):
        return float(value)
    if isinstance(value, dt.date | dt.time):
        return value.isoformat()
    if isinstance(value, dt.timedelta):
        return value.total_seconds()
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    return value

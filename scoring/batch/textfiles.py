"""CSV and JSON Lines: their lines, their records, and where a file may be cut between two."""

from __future__ import annotations

import contextlib
import csv
import io
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO, Any, Protocol

import numpy as np

from scoring.batch.chunks import RowChunk
from scoring.batch.records import Source
from scoring.errors import (
    InputError,
    MalformedPayloadError,
    PayloadTooLargeError,
    UsageError,
    WrongShapeError,
    WrongTypeError,
)
from scoring.payload.document import parse

MAX_LINE = 64 << 20
_BLOCK = 1 << 20
_HEAD_RECORDS = 100
_MARK = "\ufeff"  # at the start of text that Windows has written
_WITH_MARK = frozenset({"utf-8-sig", "utf_8_sig"})

csv.field_size_limit(MAX_LINE)


class Readable(Protocol):
    """What has lines of bytes."""

    def readline(self, limit: int, /) -> bytes:
        """The next line, or a part of it of so many bytes; empty at the end."""
        ...


@dataclass(slots=True)
class Lines:
    """The lines of a file as text, with their numbers and where they end.

    Args:
        file: At the first of the lines.
        encoding: Of the text.
        number: Of the line before the first.
        limit: Bytes after which no further line begins; None: to the end.

    Attributes:
        consumed: Bytes of the lines that were given.
        broken: By their numbers, what is wrong with lines that are no such text.
    """

    file: Readable
    encoding: str
    number: int
    limit: int | None = None
    consumed: int = 0
    broken: dict[int, str] = field(default_factory=dict)

    def __iter__(self) -> Iterator[str]:
        while self.limit is None or self.consumed < self.limit:
            line = self.file.readline(MAX_LINE + 1)
            if not line:
                return
            self.consumed += len(line)
            self.number += 1
            if len(line) > MAX_LINE:
                raise PayloadTooLargeError(
                    f"Line {self.number} is longer than {MAX_LINE >> 20} MiB.",
                    hint="Give a file with one row in each line.",
                    where=f"line {self.number}",
                )
            yield self._text(line)

    def _text(self, line: bytes) -> str:
        try:
            return line.decode(self.encoding)
        except UnicodeDecodeError as error:
            found = f"byte {error.start + 1} of the line is {line[error.start]:#04x}"
            self.broken[self.number] = f"is not {self.encoding}: {found}"
            return line.decode(self.encoding, "replace")


def text_codec(encoding: str) -> str:
    """Python's name of an encoding; that of UTF-8 lets a byte order mark pass.

    Raises:
        UsageError: It is not known, or lines are not cut at bytes in it.
    """
    try:
        plain = '\n,"'.encode(encoding) == b'\n,"' or encoding.lower() in _WITH_MARK
    except LookupError:
        raise UsageError(
            f"There is no encoding {encoding!r}.", hint="Give one such as utf-8, latin-1, cp1252."
        ) from None
    if not plain:
        raise UsageError(
            f"Text in {encoding} cannot be read by lines.",
            hint="Convert it first: iconv -f UTF-16 -t UTF-8 FILE.",
        )
    return "utf-8" if encoding.lower() in _WITH_MARK else encoding


@dataclass(frozen=True, slots=True)
class Head:
    """The beginning of a text file.

    Attributes:
        columns: The names of its columns.
        start: Where the rows begin.
        first_line: The number of the line there.
    """

    columns: tuple[str, ...]
    start: int
    first_line: int


def csv_head(file: IO[bytes], encoding: str, delimiter: str) -> Head | None:
    """The header of a CSV file; None of an empty file.

    Raises:
        MalformedPayloadError: It is no CSV, or a name stands in it twice.
    """
    lines = Lines(file, encoding, 0)
    text = (line.removeprefix(_MARK) if lines.number == 1 else line for line in lines)
    try:
        names = next(csv.reader(text, delimiter=delimiter, strict=True), None)
    except csv.Error as error:
        raise MalformedPayloadError(f"The header is no CSV: {error}.", where="line 1") from None
    if lines.broken:
        raise MalformedPayloadError(
            f"The header {next(iter(lines.broken.values()))}.", where="line 1"
        )
    if names is None:
        return None
    return Head(tuple(names), lines.consumed, lines.number + 1)


def json_head(file: IO[bytes], encoding: str) -> Head | None:
    """The columns of the first records of JSON Lines; None of a file without one.

    Raises:
        InputError: The first record is none.
    """
    lines, start = Lines(file, encoding, 0), 0
    names: dict[str, None] = {}
    records = 0
    for line in lines:
        if line.startswith(_MARK) and lines.number == 1:
            start = len(_MARK.encode())
        text = line.strip().removeprefix(_MARK)
        if not text:
            continue
        _, value, error = _json_record(lines.number, text)
        if error is not None and not records:
            raise type(error)(
                f"Line {lines.number}: {error.message}",
                hint="Put one object into each line.",
                where=f"line {lines.number}",
            )
        # Many writers leave out what is null: the first record may lack a column.
        names |= dict.fromkeys(
            value if isinstance(value, dict) else map(str, range(len(value or "")))
        )
        records += 1
        if records == _HEAD_RECORDS:
            break
    return Head(tuple(names), start, 1) if names else None


def cuts(
    file: IO[bytes], source: Source, records: int, encoding: str, delimiter: str
) -> Iterator[tuple[int, int]]:
    """Where a file is cut between records: offsets, and the numbers of the lines there.

    A block without a quotation mark is cut by its lines; else CSV's own reader tells where a
    record ends.

    Args:
        file: Of the source, seekable.
        source: With its first row's place.
        records: How many (or a few more) there are between two cuts.
        encoding: Of the text.
        delimiter: Of CSV.
    """
    file.seek(source.start)
    offset, number, since = source.start, source.first_line, 0
    while block := file.read(_BLOCK):
        block += file.readline(MAX_LINE)
        if source.format == "csv" and b'"' in block:
            ends = _record_ends(block, file, encoding, delimiter)
        else:
            ends = ((int(end) + 1, 1) for end in np.flatnonzero(np.frombuffer(block, "u1") == 10))  # noqa: PLR2004 - a line's end
        base = offset
        for end, lines in ends:
            offset, number, since = base + end, number + lines, since + 1
            if since >= records:
                yield offset, number
                since = 0
        offset = file.tell()


def _record_ends(
    block: bytes, file: IO[bytes], encoding: str, delimiter: str
) -> Iterator[tuple[int, int]]:
    """Where the records that begin in a block end, from its start, and how many lines each has."""
    lines = Lines(_Chained(block, file), encoding, 0)
    reader = csv.reader(iter(lines), delimiter=delimiter, strict=True)
    before = 0
    while lines.consumed < len(block):  # a record goes on where its block ends
        with contextlib.suppress(csv.Error):  # told when it is read
            next(reader, None)
        yield lines.consumed, lines.number - before
        before = lines.number


class _Chained:
    """Lines of a block, then those of the file behind it.

    Args:
        block: Whole lines.
        file: Behind the block.
    """

    def __init__(self, block: bytes, file: IO[bytes]) -> None:
        self._block, self._file = io.BytesIO(block), file

    def readline(self, limit: int, /) -> bytes:
        """See `Readable`."""
        return self._block.readline(limit) or self._file.readline(limit)


def csv_chunks(lines: Lines, source: Source, delimiter: str, rows: int) -> Iterator[RowChunk]:
    """The records of CSV in chunks; a record with more or fewer cells than the header is broken."""
    records = _csv_records(lines, len(source.columns), delimiter)
    yield from _chunks(records, source, rows, text=True)


def json_chunks(lines: Lines, source: Source, rows: int) -> Iterator[RowChunk]:
    """The records of JSON Lines in chunks."""
    yield from _chunks(_json_records(lines), source, rows, text=False)


_Record = tuple[int, Any, InputError | None]


def _chunks(
    records: Iterator[_Record], source: Source, size: int, *, text: bool
) -> Iterator[RowChunk]:
    while part := list(itertools.islice(records, size)):
        broken = {n: error for n, (_, _, error) in enumerate(part) if error is not None}
        rows = [row for _, row, _ in part]
        yield RowChunk(rows, [place for place, _, _ in part], source.columns, broken, text=text)


def _csv_records(lines: Lines, width: int, delimiter: str) -> Iterator[_Record]:
    reader = csv.reader(iter(lines), delimiter=delimiter, strict=True)
    while True:
        place = lines.number + 1
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield place, None, MalformedPayloadError(f"The line is no CSV: {error}.")
            continue
        row = row or ([""] if width == 1 else row)
        if not row:
            continue
        if lines.broken:
            yield place, None, _undecoded(lines)
        elif len(row) != width:
            yield place, None, _ragged(row, width)
        else:
            yield place, row, None


def _undecoded(lines: Lines) -> MalformedPayloadError:
    reason = next(iter(lines.broken.values()))
    lines.broken.clear()
    return MalformedPayloadError(
        f"The line {reason}.", hint="Give --encoding, or save the file as UTF-8."
    )


def _ragged(row: list[str], width: int) -> WrongShapeError:
    return WrongShapeError(
        f"The line has {len(row)} {'cell' if len(row) == 1 else 'cells'}; the header has {width}.",
        hint="Put cells with the delimiter in them into quotation marks.",
    )


def _json_records(lines: Lines) -> Iterator[_Record]:
    for line in lines:
        if lines.broken:
            yield lines.number, None, _undecoded(lines)
        elif line.strip():
            yield _json_record(lines.number, line)


def _json_record(number: int, line: str) -> _Record:
    try:
        value = parse(line.encode()).value
    except InputError as error:
        return number, None, type(error)(f"The line is no JSON: {error.message}", hint=error.hint)
    if isinstance(value, dict | list):
        return number, value, None
    return number, None, WrongTypeError("The line is neither an object nor a list.")

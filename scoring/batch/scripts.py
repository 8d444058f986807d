"""What a scoring script is sent for the rows of a chunk."""

from __future__ import annotations

from collections.abc import Sequence

from scoring.batch.cells import plain
from scoring.batch.chunks import Chunk
from scoring.batch.records import Options
from scoring.batch.writers import dumps


def body_of(chunk: Chunk, columns: Sequence[str], options: Options) -> bytes:
    """A request's body; what of CSV is a number in JSON is sent as one.

    Args:
        chunk: Rows that are not broken.
        columns: Those that the script gets.
        options: With the form of the body.

    Raises:
        UnknownInputError: A row has no such column.
    """
    values = [chunk.values(name) for name in columns]
    if chunk.text:
        values = [[plain(cell) for cell in cells] for cells in values]
    rows = list(zip(*values, strict=True))
    if options.body == "records":
        return dumps({options.body_key: [dict(zip(columns, row, strict=True)) for row in rows]})
    if options.body == "split":
        return dumps({"columns": list(columns), "data": rows})
    return dumps({options.body_key: rows})

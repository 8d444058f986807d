"""Parquet, by pyarrow: what stands in a file's footer, and its rows in chunks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import IO, Any

from scoring.batch.chunks import ArrowChunk
from scoring.errors import MalformedPayloadError, MissingDependencyError


def need(what: str) -> Any:
    """The module `pyarrow.parquet`.

    Raises:
        MissingDependencyError: It is not installed.
    """
    try:
        import pyarrow.parquet as pq  # noqa: PLC0415 - where a dataset is Parquet
    except ImportError as error:
        raise MissingDependencyError(
            f"{what} needs pyarrow, which is not installed here.",
            hint="Install it with pip install 'fieldpost[batch]'; where the image reads the data, "
            "add pyarrow to the package's environment, or use CSV or JSON Lines.",
        ) from error
    return pq


def open_file(file: IO[bytes], path: str) -> Any:
    """A `pyarrow.parquet.ParquetFile`.

    Raises:
        MalformedPayloadError: It is none, or cut off.
        MissingDependencyError: pyarrow is not installed.
    """
    pq = need(path)
    import pyarrow as pa  # noqa: PLC0415 - there with the module above

    try:
        return pq.ParquetFile(file, pre_buffer=False, buffer_size=1 << 20)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise MalformedPayloadError(
            f"{path} is no Parquet file: {error}.", hint="Write it anew.", where=path
        ) from error


def groups(opened: Any) -> list[int]:
    """The number of rows of each row group."""
    metadata = opened.metadata
    return [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)]


def types(opened: Any) -> dict[str, Any]:
    """Name to Arrow type of the columns."""
    return {field.name: field.type for field in opened.schema_arrow}


def chunks(
    opened: Any, span: range, columns: Sequence[str], first: int, rows: int, path: str
) -> Iterator[ArrowChunk]:
    """The rows of some row groups.

    Args:
        opened: The file.
        span: Numbers of the row groups.
        columns: Those to read.
        first: The number of the first row.
        rows: Of one chunk.
        path: For messages.

    Raises:
        MalformedPayloadError: What stands there is broken.
    """
    import pyarrow as pa  # noqa: PLC0415 - there with the file

    if not span:
        return
    batches = opened.iter_batches(
        batch_size=rows, row_groups=list(span), columns=list(columns), use_threads=False
    )
    try:
        for batch in batches:
            yield ArrowChunk(batch, first)
            first += batch.num_rows
    except (pa.ArrowException, OSError) as error:
        raise MalformedPayloadError(
            f"{path} cannot be read behind row {first - 1}: {error}.",
            hint="Write the file anew.",
            where=path,
        ) from error

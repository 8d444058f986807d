"""The rows of one shard, in chunks, wherever its file is and whatever it is packed in."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import IO

from scoring.batch import files, parquet, textfiles
from scoring.batch.chunks import Chunk
from scoring.batch.records import Options, Shard, Source
from scoring.batch.stores import Store


@contextlib.contextmanager
def read_chunks(
    store: Store, source: Source, shard: Shard, options: Options, columns: Sequence[str]
) -> Iterator[Iterator[Chunk]]:
    """The chunks of a shard, each of as many rows as the model gets at once.

    Args:
        store: Of the dataset.
        source: The shard's file.
        shard: Which part of it.
        options: The user's.
        columns: Those to read, of a file that has them apart.

    Raises:
        MalformedPayloadError: The file is not what its name says.
    """
    with store.open(source.path) as raw:
        if source.format == "parquet":
            opened = parquet.open_file(raw, source.path)
            end = shard.end if shard.end >= 0 else opened.num_row_groups
            span = range(shard.start, end)
            wanted = list(dict.fromkeys(columns))
            yield parquet.chunks(opened, span, wanted, shard.first, options.call_rows, source.path)
            return
        with files.unpacked(raw, source.compression, source.path) as file:
            if source.compression:
                file.read(shard.start)  # a header: packed files are not cut
            else:
                file.seek(shard.start)
            yield _text_chunks(file, source, shard, options)


def _text_chunks(
    file: IO[bytes], source: Source, shard: Shard, options: Options
) -> Iterator[Chunk]:
    limit = shard.end - shard.start if shard.end >= 0 else None
    codec = textfiles.text_codec(options.encoding)
    lines = textfiles.Lines(file, codec, shard.first - 1, limit)
    if source.format == "csv":
        delimiter = files.delimiter_of(source.path, options)
        return textfiles.csv_chunks(lines, source, delimiter, options.call_rows)
    return textfiles.json_chunks(lines, source, options.call_rows)

"""What is agreed on before any row is scored: the options, the dataset, its shards, their results.

All of it is data, and the plan is a pure function of the options, the model and the dataset:
whoever makes it, and however often, makes the same one.
"""

from __future__ import annotations

from typing import Literal

import msgspec

Format = Literal["parquet", "csv", "jsonl"]
OnError = Literal["fail", "skip", "null"]
Body = Literal["rows", "records", "split"]
Mode = Literal["columns", "named", "script"]
"""`columns`: each column is a column of the model. `named`: each is one of its inputs, whole."""

PLAN_VERSION = 1


class Options(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a user asks for.

    Attributes:
        input: A file, a folder, a glob or a URL of fsspec.
        output: A file, or a folder or URL to which a part for each shard goes.
        input_format: Empty: told by the names of the files.
        output_format: Empty: that of the output's name, else the input's.
        columns: The dataset's columns that the model takes, in its order; none: by their names.
        keep: Columns of the dataset that stand in the result, before the answers.
        prefix: Put before the names of the answers' columns.
        shard_rows: About as many rows (of a text: records) are one shard.
        call_rows: As many rows are given to the model at once.
        on_error: What a row becomes that the model does not take.
        delimiter: Of CSV; empty: a comma, and a tab for `.tsv`.
        encoding: Of text.
        body: What a script gets: rows, objects, or pandas' split form.
        body_key: Under which a script looks for `rows` and `records`.
    """

    input: str
    output: str
    input_format: str = ""
    output_format: str = ""
    columns: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()
    prefix: str = ""
    shard_rows: int = 100_000
    call_rows: int = 1000
    on_error: OnError = "fail"
    delimiter: str = ""
    encoding: str = "utf-8"
    body: Body = "rows"
    body_key: str = "data"


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """A file of the dataset.

    Attributes:
        path: As its store names it.
        size: In bytes, as stored.
        mark: What changes with its content: a time or an entity tag.
        format: Of the file.
        compression: `gzip`, `zstd`, `bz2`, `xz`; empty for none.
        columns: The names of its columns, in their order.
        start: Where the rows begin, behind a header.
        first_line: The number of the line that is there.
    """

    path: str
    size: int
    mark: str
    format: Format
    compression: str = ""
    columns: tuple[str, ...] = ()
    start: int = 0
    first_line: int = 1


class Shard(msgspec.Struct, frozen=True, kw_only=True):
    """What is scored, written and tried again as one.

    Attributes:
        source: The place of its file among the sources.
        start: The first byte, or row group.
        end: Behind the last byte, or row group; -1: to the end of the file.
        first: The number of its first line (text) or row (Parquet), from 1.
    """

    source: int
    start: int = 0
    end: int = -1
    first: int = 1


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """A column of the result that the model fills.

    Attributes:
        name: Of the column.
        output: The model's output (or the script's key) that it comes from.
        index: The place in a row of that output; None for the whole of it.
        key: The entry of a `map` output; None for none.
        kind: NumPy's name of the element type, `json` for what is nested, `value` for what a
            script answers.
    """

    name: str
    output: str
    kind: str
    index: int | None = None
    key: str | int | float | bool | None = None


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """A column of the dataset that stands in the result.

    Attributes:
        name: Of the column.
        kind: As of an `Answer`; `arrow` where it has the type that it has in the dataset.
    """

    name: str
    kind: str


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """All that is needed to score any shard.

    Attributes:
        model: A digest of the package, or of the files that serve.
        options: The user's.
        format: Of the result.
        sources: The files, in order.
        shards: In order.
        mode: How the columns go to the model.
        inputs: Columns of the dataset that do, in its order.
        kept: Columns of the dataset that stand in the result.
        answers: Columns of the result behind those that are kept.
        version: Of this document.
    """

    model: str
    options: Options
    format: Format
    sources: tuple[Source, ...]
    shards: tuple[Shard, ...]
    mode: Mode
    inputs: tuple[str, ...]
    kept: tuple[Kept, ...]
    answers: tuple[Answer, ...]
    version: int = PLAN_VERSION


class Done(msgspec.Struct, frozen=True, kw_only=True):
    """A shard whose result is in its place.

    Attributes:
        shard: Its number, from 0.
        rows: Read.
        written: Rows of the result.
        rejected: Rows that the model did not take.
        seconds: It took.
    """

    shard: int
    rows: int
    written: int
    rejected: int
    seconds: float = 0.0


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """A whole run.

    Attributes:
        output: Where the result is.
        rejects: Where the rows are listed that the model did not take; empty where there are none.
        rows: Read.
        written: Rows of the result.
        rejected: Rows that the model did not take.
        shards: How many.
        resumed: How many of them had been scored before this run.
        seconds: This run took.
    """

    output: str
    rows: int
    written: int
    rejected: int
    shards: int
    rejects: str = ""
    resumed: int = 0
    seconds: float = 0.0

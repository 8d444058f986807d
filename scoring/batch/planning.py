"""From the options, the model and the dataset to the plan of a run."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import orjson

from scoring.batch import blocks, files, parquet, signature, textfiles
from scoring.batch.chunks import Chunk
from scoring.batch.decoding import Decoder
from scoring.batch.models import Model
from scoring.batch.places import require_apart
from scoring.batch.reading import read_chunks
from scoring.batch.records import Answer, Options, Plan, Shard, Source
from scoring.batch.scripts import body_of
from scoring.batch.stores import Entry, Store, is_url, store_of
from scoring.errors import FieldpostError, InputError, NotFoundError, UsageError

_PROBED_ROWS = 100


def make_plan(options: Options, model: Model, digest: str) -> Plan:
    """Looks at the whole dataset, asks nothing of the model (of a script: for a few rows).

    Args:
        options: The user's.
        model: What is going to answer.
        digest: Which model that is.

    Raises:
        UnknownInputError: The dataset does not fit the model; all reasons stand in it.
        NotFoundError: There is no dataset.
        UsageError: The options do not fit together.
    """
    check(options)
    store, place = store_of(options.input)
    entries = store.find(place)
    if not entries:
        raise NotFoundError(
            f"There is no file at {options.input}.",
            hint="Give a file, a folder, a glob in quotation marks, or a URL.",
            where=options.input,
        )
    require_apart(options.input, options.output, _named_files(options.input, entries))
    sources, problems = _sources(store, entries, options)
    filled = [source for source in sources if source.columns]
    if not filled and not problems:
        fitted = signature.fit(model.schema, options, ())
        problems[options.input] = [f"has no columns: it is empty{_wanted(fitted)}"]
    answers: tuple[Answer, ...] = ()
    if model.schema is not None:
        answers = signature.answers_of(model.schema, options.prefix)
    fitted = signature.fit(model.schema, options, filled[0].columns if filled else ())
    for source in filled:
        found = _problems(store, source, options, model, fitted)
        found += signature.kept_problems(options, source, answers)
        if found:
            problems[source.path] = found
    signature.refuse(problems)
    head = _head(store, filled, options)
    if model.schema is None:
        answers = _script_answers(model, fitted, head, options)
        signature.refuse({"the options": signature.kept_problems(options, filled[0], answers)})
    seen = {
        name: blocks.kind_of([value for chunk in head for value in chunk.kept(name)])
        for name in (options.keep if filled[0].format == "jsonl" else ())
    }
    return Plan(
        model=digest,
        options=options,
        format=files.output_format(options, filled[0].format),
        sources=tuple(sources),
        shards=tuple(_shards(store, sources, options)),
        mode=fitted.mode,
        inputs=fitted.columns,
        kept=signature.kept_columns(options, filled[0], seen),
        answers=answers,
    )


def _named_files(place: str, entries: Sequence[Entry]) -> list[str]:
    """The files, named as the user names places: a store of fsspec leaves the protocol out."""
    scheme = f"{place.partition('://')[0]}://" if is_url(place) else ""
    return [f"{scheme}{each.path.lstrip('/') if scheme else each.path}" for each in entries]


def _wanted(fitted: signature.Fit) -> str:
    return f"; the model takes {', '.join(fitted.names)}" if fitted.names else ""


def check(options: Options) -> None:
    """Refuses options that mean nothing.

    Raises:
        UsageError: One does.
    """
    textfiles.text_codec(options.encoding)
    for name in ("shard_rows", "call_rows"):
        if getattr(options, name) < 1:
            raise UsageError(f"--{name.replace('_', '-')} has to be 1 or more.")
    if len(files.delimiter_of("", options)) != 1:
        raise UsageError(
            f"The delimiter {options.delimiter!r} is not one character.",
            hint="Give one such as ';' or 'tab'.",
        )
    if not options.output:
        raise UsageError(
            "There is no place for the result.", hint="Name a file, a folder or a URL."
        )


def identity(plan: Plan) -> str:
    """What names a plan: the same for the same options, model and dataset."""
    return hashlib.sha256(msgspec.json.encode(plan, order="sorted")).hexdigest()[:12]


def _sources(
    store: Store, entries: Sequence[Entry], options: Options
) -> tuple[list[Source], dict[str, list[str]]]:
    sources: list[Source] = []
    problems: dict[str, list[str]] = {}
    for entry in entries:
        try:
            sources.append(_source(store, entry, options))
        except InputError as error:
            problems[entry.path] = [error.message.rstrip(".")]
    return sources, problems


def _source(store: Store, entry: Entry, options: Options) -> Source:
    format_, compression = files.input_format(entry.path, options)
    source = Source(
        path=entry.path,
        size=entry.size,
        mark=entry.mark,
        format=format_,
        compression=compression if format_ != "parquet" else "",
    )
    if not entry.size:
        return source
    with store.open(entry.path) as raw:
        if format_ == "parquet":
            types = parquet.types(parquet.open_file(raw, entry.path))
            return msgspec.structs.replace(source, columns=tuple(types))
        with files.unpacked(raw, source.compression, entry.path) as file:
            codec = textfiles.text_codec(options.encoding)
            if format_ == "csv":
                delimiter = files.delimiter_of(entry.path, options)
                head = textfiles.csv_head(file, codec, delimiter)
            else:
                head = textfiles.json_head(file, codec)
    if head is None:
        return source
    return msgspec.structs.replace(
        source, columns=head.columns, start=head.start, first_line=head.first_line
    )


def _problems(
    store: Store, source: Source, options: Options, model: Model, fitted: signature.Fit
) -> list[str]:
    found = signature.header_problems(fitted, options, source)
    found = found or [*signature.checked(fitted, source.columns).problems]
    if source.format == "parquet":
        with store.open(source.path) as file:
            types = parquet.types(parquet.open_file(file, source.path))
        return [*found, *signature.type_problems(fitted, types)]
    if found or model.schema is None:
        return found
    return _cell_problems(_first_rows(store, source, options), fitted, model, options)


def _cell_problems(
    chunks: Sequence[Chunk], fitted: signature.Fit, model: Model, options: Options
) -> list[str]:
    """What the first rows of text hold that the model does not take: once for each column."""
    assert model.schema is not None
    decoder = Decoder(model.schema, fitted)
    found: dict[str, str] = {}
    rows = broken = 0
    for chunk in chunks:
        rows += len(chunk)
        good = [number for number in range(len(chunk)) if number not in chunk.broken]
        faults = dict(chunk.broken.items())
        faults |= {good[n]: e for n, e in decoder.decode(chunk.select(good))[1].items()}
        broken += len(faults)
        for number, error in sorted(faults.items()):
            told = f"line {chunk.places[number]}: {error.message.rstrip('.')}"
            found.setdefault(error.where or type(error).code, told)
    # Single rows that are to be skipped are no reason not to begin.
    return list(found.values()) if options.on_error == "fail" or broken == rows else []


def _head(store: Store, sources: Sequence[Source], options: Options) -> list[Chunk]:
    return _first_rows(store, sources[0], options)


def _first_rows(store: Store, source: Source, options: Options) -> list[Chunk]:
    shard = Shard(source=0, start=0 if source.format == "parquet" else source.start, first=1)
    if source.format != "parquet":
        shard = msgspec.structs.replace(shard, first=source.first_line)
    few = msgspec.structs.replace(options, call_rows=_PROBED_ROWS)
    with read_chunks(store, source, shard, few, source.columns) as chunks:
        return list(itertools.islice(chunks, 1))


def _script_answers(
    model: Model, fitted: signature.Fit, head: Sequence[Chunk], options: Options
) -> tuple[Answer, ...]:
    """The columns that a script fills: it is asked for the first rows, of which it may take one."""
    reasons: list[FieldpostError] = []
    for chunk in head:
        good = [number for number in range(len(chunk)) if number not in chunk.broken]
        for rows in (good, *([number] for number in good)):
            if not rows:
                continue
            part = chunk.select(rows)
            try:
                answer = orjson.loads(model.ask(body_of(part, fitted.columns, options)))
                return _named(blocks.script_columns(answer, len(rows)), options)
            except InputError as error:
                reasons.append(error)
                if options.on_error == "fail":
                    raise
    if reasons:
        raise reasons[0]
    return _named({"": []}, options)


def _named(columns: dict[str, list[Any]], options: Options) -> tuple[Answer, ...]:
    return tuple(
        Answer(
            name=f"{options.prefix}{key or signature.PREDICTION}",
            output=key,
            kind={"int64": "float64"}.get(kind := blocks.kind_of(values), kind),
        )
        for key, values in columns.items()
    )


def _shards(store: Store, sources: Sequence[Source], options: Options) -> Iterator[Shard]:
    for number, source in enumerate(sources):
        if not source.columns:
            continue
        if source.format == "parquet":
            yield from _group_shards(store, number, source, options.shard_rows)
        elif source.compression:
            yield Shard(source=number, start=source.start, first=source.first_line)
        else:
            yield from _text_shards(store, number, source, options)


def _group_shards(store: Store, number: int, source: Source, rows: int) -> Iterator[Shard]:
    with store.open(source.path) as file:
        sizes = parquet.groups(parquet.open_file(file, source.path))
    start, first, total = 0, 1, 0
    for end, size in enumerate(sizes, 1):
        total += size
        if total >= rows or end == len(sizes):
            yield Shard(source=number, start=start, end=end, first=first)
            start, first, total = end, first + total, 0


def _text_shards(store: Store, number: int, source: Source, options: Options) -> Iterator[Shard]:
    start, first = source.start, source.first_line
    codec = textfiles.text_codec(options.encoding)
    delimiter = files.delimiter_of(source.path, options)
    with store.open(source.path) as file:
        for end, line in textfiles.cuts(file, source, options.shard_rows, codec, delimiter):
            yield Shard(source=number, start=start, end=end, first=first)
            start, first = end, line
    if start < source.size:
        yield Shard(source=number, start=start, end=source.size, first=first)

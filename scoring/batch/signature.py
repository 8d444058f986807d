"""Whether a dataset fits a model, told before any work, all problems at once; pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from scoring.batch.records import Answer, Kept, Mode, Options, Source
from scoring.errors import UnknownInputError
from scoring.payload.places import listed
from scoring.schema import ModelSchema, TensorSpec

_MATRIX_RANK = 2
_NUMBER = re.compile(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?", re.ASCII)
PREDICTION = "prediction"


@dataclass(frozen=True, slots=True)
class Fit:
    """How a dataset goes to a model.

    Attributes:
        mode: See `scoring.batch.records.Mode`.
        columns: Of the dataset, in the model's order.
        specs: What each of them takes; none for a script.
        names: What the model calls each of them; none where it goes by their order.
        problems: Why it does not fit.
    """

    mode: Mode
    columns: tuple[str, ...]
    specs: tuple[TensorSpec, ...] = ()
    names: tuple[str, ...] = ()
    problems: tuple[str, ...] = field(default=())


def fit(schema: ModelSchema | None, options: Options, available: Sequence[str]) -> Fit:
    """The columns that go to a model.

    Args:
        schema: The model's; None for a script.
        options: The user's.
        available: The columns of the dataset.
    """
    rest = tuple(name for name in available if name not in options.keep)
    if schema is None:
        return checked(Fit("script", options.columns or rest), available)
    if not _by_columns(schema, available, options):
        names = tuple(spec.name for spec in schema.inputs if not spec.unused)
        specs = tuple(spec for spec in schema.inputs if not spec.unused)
        return checked(Fit("named", options.columns or names, specs, names), available)
    specs, names = wanted_columns(schema, len(rest))
    if options.columns:
        return checked(Fit("columns", options.columns, specs, names), available)
    if not names or _is_numbered(available):
        return checked(Fit("columns", rest, specs, names), available)
    return checked(Fit("columns", names, specs, names), available)


def refit(schema: ModelSchema | None, mode: Mode, columns: Sequence[str]) -> Fit:
    """How columns that were chosen for one file go to a model, also in the others."""
    if schema is None:
        return Fit(mode, tuple(columns))
    if mode == "named":
        specs = tuple(spec for spec in schema.inputs if not spec.unused)
        return Fit(mode, tuple(columns), specs, tuple(spec.name for spec in specs))
    wanted, names = wanted_columns(schema, len(columns))
    return Fit(mode, tuple(columns), wanted, names)


def _by_columns(schema: ModelSchema, available: Sequence[str], options: Options) -> bool:
    """Whether each column of the model is one of the dataset, and not each input."""
    if schema.layout == "table":
        return True
    first = schema.inputs[0]
    if len(schema.inputs) > 1 or len(first.shape) != _MATRIX_RANK:
        return False
    whole = not options.columns and first.name in available and first.shape[1] != 1
    return not whole or (set(schema.features) <= set(available) and bool(schema.features))


def wanted_columns(
    schema: ModelSchema, given: int
) -> tuple[tuple[TensorSpec, ...], tuple[str, ...]]:
    """What each column of a model takes, and their names where it knows them.

    Args:
        schema: With columns: a table, or one matrix.
        given: How many columns there are, for a model that takes any number.
    """
    if schema.layout == "table":
        specs = tuple(spec for spec in schema.inputs if not spec.unused)
        return specs, tuple(spec.name for spec in specs)
    spec = schema.inputs[0]
    width = spec.shape[1]
    names = schema.features if width in {None, len(schema.features)} else ()
    return (spec,) * (len(names) or width or given), tuple(names)


def _is_numbered(available: Sequence[str]) -> bool:
    """The columns of rows without names, which go by their order."""
    return bool(available) and list(available) == [str(n) for n in range(len(available))]


def checked(found: Fit, available: Sequence[str]) -> Fit:
    """The same, with what stands against it in a file of these columns."""
    problems = []
    missing = [name for name in dict.fromkeys(found.columns) if name not in available]
    twice = [name for name in dict.fromkeys(found.columns) if list(available).count(name) > 1]
    if missing:
        problems.append(f"missing {_columns(missing)}; it has {listed(list(available))}")
    if twice:
        problems.append(f"given twice: {_columns(twice)}")
    if found.mode != "script" and len(found.columns) != len(found.specs):
        problems.append(
            f"the model takes {len(found.specs)} columns and would get {len(found.columns)} "
            f"({listed(list(found.columns))}); name them with --columns, or the others with --keep"
        )
    return Fit(found.mode, found.columns, found.specs, found.names, tuple(problems))


def header_problems(fitted: Fit, options: Options, source: Source) -> list[str]:
    """Why the first line of a CSV file seems to be a row, which would have no result.

    Only where no name is looked for. Whole numbers from 0 on may be names: pandas writes them.
    """
    if source.format != "csv" or fitted.names or options.columns:
        return []
    numbers = all(_NUMBER.fullmatch(name.strip()) for name in source.columns)
    if not numbers or all(name.strip().isdigit() for name in source.columns):
        return []
    seen = listed(list(source.columns))
    advice = "put the names of the columns before it, or give it with --columns if it holds them"
    return [f"its first line, {seen}, seems to be a row: {advice}"]


def _columns(names: Sequence[str]) -> str:
    return f"column{'' if len(names) == 1 else 's'} {listed(list(names))}"


def type_problems(fitted: Fit, types: Mapping[str, Any]) -> list[str]:
    """What of a typed file (Parquet) the model does not take.

    Args:
        fitted: What goes to it.
        types: Name to Arrow type.
    """
    problems = []
    for name, spec in zip(fitted.columns, fitted.specs, strict=False):
        kind = str(types.get(name, ""))
        if kind and fitted.mode == "columns" and not _takes(spec, kind):
            problems.append(f"column {name!r} is {kind}; the model takes {spec.dtype}")
    return problems


def _takes(spec: TensorSpec, kind: str) -> bool:
    if kind.startswith("dictionary<"):
        kind = kind.removeprefix("dictionary<values=").partition(",")[0]
    if kind == "null":
        return spec.missing
    numbers = ("int", "uint", "float", "double", "halffloat", "decimal")
    wanted: dict[str, tuple[str, ...]] = {
        "s": ("string", "large_string", "string_view"),
        "b": ("bool",),
    }
    return kind.startswith(wanted.get(spec.dtype[0], numbers))


def kept_problems(options: Options, source: Source, answers: Sequence[Answer]) -> list[str]:
    """Why columns cannot stand in the result."""
    problems = []
    missing = [name for name in options.keep if name not in source.columns]
    if missing:
        problems.append(f"missing {_columns(missing)}, which --keep names")
    twice = [name for name in dict.fromkeys(options.keep) if source.columns.count(name) > 1]
    if twice:
        problems.append(f"given twice: {_columns(twice)}, which --keep names")
    if len(set(options.keep)) < len(options.keep):
        problems.append("--keep names a column twice")
    taken = [each.name for each in answers if each.name in options.keep]
    if taken:
        problems.append(
            f"{_columns(taken)} would stand twice in the result; give the answers a --prefix"
        )
    return problems


def refuse(problems: Mapping[str, Sequence[str]]) -> None:
    """Ends what cannot begin.

    Args:
        problems: Place (a file, `the options`) to what is wrong there.

    Raises:
        UnknownInputError: There is a problem; all of them stand in the message.
    """
    lines = [f"{place}: {text}" for place, texts in problems.items() for text in texts]
    if not lines:
        return
    if len(lines) == 1:
        raise UnknownInputError(
            f"The dataset does not fit. {lines[0]}.", where=next(iter(problems))
        )
    listing = "\n".join(f"  - {line}" for line in lines)
    raise UnknownInputError(f"The dataset does not fit, for {len(lines)} reasons:\n{listing}")


def answers_of(schema: ModelSchema, prefix: str) -> tuple[Answer, ...]:
    """The columns that a model fills: its prediction first, a column for each probability."""
    found: list[Answer] = []
    for number, spec in enumerate(schema.outputs):
        base = PREDICTION if number == 0 else _singular(spec.name)
        found += _answers(spec, base, schema)
    named = _distinct([each.name for each in found])
    return tuple(
        Answer(
            name=f"{prefix}{name}",
            output=each.output,
            kind=each.kind,
            index=each.index,
            key=each.key,
        )
        for name, each in zip(named, found, strict=True)
    )


def _answers(spec: TensorSpec, base: str, schema: ModelSchema) -> list[Answer]:
    name, sizes = spec.name, spec.shape[1:]
    if spec.dtype == "map":
        if not schema.classes:
            return [Answer(name=base, output=name, kind="json")]
        return [
            Answer(name=f"{base}_{label}", output=name, kind="float64", key=label)
            for label in schema.classes
        ]
    if sizes in {(), (1,)}:
        return [Answer(name=base, output=name, kind=spec.dtype)]
    if len(sizes) > 1 or sizes[0] is None:
        return [Answer(name=base, output=name, kind="json")]
    labels: Sequence[Any] = range(sizes[0])
    if len(schema.classes) == sizes[0]:
        labels = schema.classes
    return [
        Answer(name=f"{base}_{label}", output=name, kind=spec.dtype, index=index)
        for index, label in enumerate(labels)
    ]


def _singular(name: str) -> str:
    return {"probabilities": "probability", "output_probability": "probability"}.get(name, name)


def _distinct(names: Sequence[str]) -> list[str]:
    """Names of which none is given twice: classes 1 and "1" may look alike."""
    seen: set[str] = set()
    found = []
    for name in names:
        distinct, number = name, 2
        while distinct in seen:
            distinct, number = f"{name}_{number}", number + 1
        seen.add(distinct)
        found.append(distinct)
    return found


def kept_columns(options: Options, source: Source, seen: Mapping[str, str]) -> tuple[Kept, ...]:
    """What the kept columns are in the result: the text of CSV stays as it is.

    Args:
        options: The user's.
        source: The first file.
        seen: What the first rows of JSON hold, as kinds of `Answer`.
    """
    if source.format == "parquet":
        return tuple(Kept(name=name, kind="arrow") for name in options.keep)
    if source.format == "jsonl":
        return tuple(Kept(name=name, kind=seen.get(name, "json")) for name in options.keep)
    return tuple(Kept(name=name, kind="string") for name in options.keep)

"""Draws inputs from the range that a model was trained on, as far as the fitted model tells it.

Nothing here is random without a seed: the same model and seed give the same rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scoring.compilation.ranges import Column, Floats, Ranges, ranges_of
from scoring.formats.base import LoadedModel
from scoring.runtimes.base import NUMPY_DTYPES
from scoring.schema import TensorSpec

Inputs = dict[str, NDArray[Any]]

UNKNOWN = "fieldpost-unknown"
_SCALES = np.array([0.1, 1.0, 1.0, 1.0, 10.0, 100.0])
_SPECIAL_SHARE = 4
_WORD_CHANGES = (
    "{}'s",
    "{}-{}",
    "{}_{}",
    "é{}",
    "{}é",
    "a {}",
    "x {}",
    "42{}",
    "({}).",
    "unseen {}",
)


def draw_inputs(
    loaded: LoadedModel, rows: int, seed: int, sample: Mapping[str, NDArray[Any]] | None = None
) -> Inputs:
    """Draws rows for a model.

    The first three quarters are plain; in the last one, values are missing and categories unknown
    where the model takes that.

    Args:
        loaded: The model; scikit-learn estimators and boosters tell their range.
        rows: How many.
        seed: Of the draw.
        sample: Rows of the user's, which widen the range.

    Returns:
        One array for each input of the model's schema, of its element type and shape.
    """
    rng = np.random.default_rng(seed)
    specs = loaded.schema.inputs
    widths = [_width(spec) for spec in specs]
    ranges = ranges_of(loaded.model, sum(widths))
    if sample is not None:
        _widen(ranges, specs, widths, sample)
    drawn = _numbers(ranges, rows, rng)
    result: Inputs = {}
    start = 0
    for spec, width in zip(specs, widths, strict=True):
        columns = ranges.columns[start : start + width]
        result[spec.name] = _one_input(spec, columns, drawn[:, start : start + width], rng)
        start += width
    return result


def _width(spec: TensorSpec) -> int:
    """The columns of one input, all of its dimensions but the first flattened."""
    return int(np.prod([size or 1 for size in spec.shape[1:]], dtype=np.int64))


def _widen(
    ranges: Ranges,
    specs: tuple[TensorSpec, ...],
    widths: list[int],
    sample: Mapping[str, NDArray[Any]],
) -> None:
    start = 0
    for spec, width in zip(specs, widths, strict=True):
        columns = np.asarray(sample[spec.name]).reshape(-1, width).T
        for column, values in zip(ranges.columns[start : start + width], columns, strict=True):
            if spec.dtype == "string":
                known = [value for value in values.tolist() if isinstance(value, str)]
                column.values += sorted(set(known))
            else:
                numbers = values.astype(np.float64)
                column.points.append(numbers[np.isfinite(numbers)])
        start += width


def _numbers(ranges: Ranges, rows: int, rng: np.random.Generator) -> Floats:
    """A matrix (rows, columns) of numbers; those of string columns are not used."""
    scales = rng.choice(_SCALES, size=rows)
    columns = [_number_column(column, rows, scales, rng) for column in ranges.columns]
    drawn = np.stack(columns, axis=1) if columns else np.empty((rows, 0))
    if ranges.rows:
        known = np.concatenate(ranges.rows)
        exact = known[: rows // 2]
        drawn[: len(exact)] = exact
        chosen = len(exact) + np.flatnonzero(rng.random(rows - len(exact)) < 0.5)  # noqa: PLR2004
        drawn[chosen] = _near_rows(known, len(chosen), rng)
    return drawn


def _near_rows(known: Floats, count: int, rng: np.random.Generator) -> Floats:
    """Rows between two known ones, a little beside one, and with values of both.

    The last stay on the grid that measured data lie on, where distances are often equal.
    """
    first = known[rng.integers(len(known), size=count)]
    second = known[rng.integers(len(known), size=count)]
    part = rng.choice([0.0, 0.0, 0.5], size=(count, 1)) * rng.random((count, 1))
    noise = rng.normal(size=first.shape) * known.std(axis=0)
    beside = rng.choice([0.0, 0.01, 0.1], size=(count, 1))
    near = first + part * (second - first) + beside * noise
    share = rng.choice([2.0 / known.shape[1], 0.25], size=(count, 1))
    crossed = np.where(rng.random(first.shape) < share, second, first)
    return np.where(rng.random((count, 1)) < 0.5, crossed, near)  # noqa: PLR2004


def _number_column(column: Column, rows: int, scales: Floats, rng: np.random.Generator) -> Floats:
    """One column: a mix of all that is known of it."""
    choices: list[Floats] = []
    points = np.unique(np.concatenate(column.points)) if column.points else np.empty(0)
    if points.size:
        choices += [_near_points(points, rows, rng), _across(points, rows, rng)]
    for mean, scale in column.normals[:8]:
        choices.append(mean + scale * rng.normal(size=rows) * rng.choice([1.0, 3.0], size=rows))
    numbers = [value for value in column.values if isinstance(value, int | float)]
    if numbers:
        choices = [rng.choice(np.asarray(numbers, dtype=np.float64), size=rows)]
    if not choices:
        return np.asarray(scales * rng.normal(size=rows), dtype=np.float64)
    return np.stack(choices)[rng.integers(len(choices), size=rows), np.arange(rows)]


def _near_points(points: Floats, rows: int, rng: np.random.Generator) -> Floats:
    """On points, and beside them by the smallest step of a double and of a float."""
    base = rng.choice(points, size=rows)
    single = base.astype(np.float32)
    upwards = np.float32(np.inf)
    choices = np.stack(
        [
            base,
            np.nextafter(base, np.inf),
            np.nextafter(base, -np.inf),
            single.astype(np.float64),
            np.nextafter(single, upwards).astype(np.float64),
            np.nextafter(single, -upwards).astype(np.float64),
        ]
    )
    return np.asarray(choices[rng.integers(len(choices), size=rows), np.arange(rows)])


def _across(points: Floats, rows: int, rng: np.random.Generator) -> Floats:
    """Between neighbouring points, and a little beyond the first and the last."""
    span = float(points[-1] - points[0]) or max(1.0, abs(float(points[0])))
    edges = np.concatenate([[points[0] - 0.25 * span], points, [points[-1] + 0.25 * span]])
    lower = rng.integers(len(edges) - 1, size=rows)
    return np.asarray(edges[lower] + rng.random(rows) * (edges[lower + 1] - edges[lower]))


def _one_input(
    spec: TensorSpec, columns: list[Column], numbers: Floats, rng: np.random.Generator
) -> NDArray[Any]:
    rows = len(numbers)
    if spec.dtype == "string":
        drawn = np.empty((rows, len(columns)), dtype=object)
        for index, column in enumerate(columns):
            drawn[:, index] = _strings(column, rows, spec.missing, rng)
    elif spec.dtype == "bool":
        drawn = numbers > np.median(numbers) if rows else numbers.astype(bool)
    else:
        if NUMPY_DTYPES[spec.dtype].kind in "iu":
            info = np.iinfo(NUMPY_DTYPES[spec.dtype])
            numbers = np.clip(np.rint(numbers), float(info.min) / 2, float(info.max) / 2)
        drawn = numbers.astype(NUMPY_DTYPES[spec.dtype])
        if spec.missing and drawn.dtype.kind == "f":
            _blank(drawn, rng)
    return np.reshape(drawn, [rows, *(size or 1 for size in spec.shape[1:])])


def _blank(drawn: NDArray[Any], rng: np.random.Generator) -> None:
    """Sets values missing in the last quarter of the rows: mostly one, sometimes many."""
    rows, width = drawn.shape
    for row in range(rows - rows // _SPECIAL_SHARE, rows):
        count = int(rng.choice([1, 1, 1, max(1, width // 2), width]))
        drawn[row, rng.permutation(width)[:count]] = np.nan


def _strings(column: Column, rows: int, missing: bool, rng: np.random.Generator) -> list[Any]:
    if column.words:
        return [_text(column.words, rng) for _ in range(rows)]
    known = [value for value in column.values if isinstance(value, str)] or ["a", "b", "c"]
    drawn: list[Any] = [known[index] for index in rng.integers(len(known), size=rows)]
    special = ([None] if missing else []) + ([UNKNOWN] if column.unknown else [])
    for row in range(rows - rows // _SPECIAL_SHARE, rows):
        if special and rng.random() < 0.5:  # noqa: PLR2004
            drawn[row] = special[int(rng.integers(len(special)))]
    return drawn


def _text(words: list[str], rng: np.random.Generator) -> str:
    """A text of words that the model knows, some that it does not, and punctuation."""
    chosen = [words[index] for index in rng.integers(len(words), size=int(rng.integers(0, 16)))]
    for index in range(len(chosen)):
        if rng.random() < 0.25:  # noqa: PLR2004
            change = _WORD_CHANGES[int(rng.integers(len(_WORD_CHANGES)))]
            chosen[index] = change.format(chosen[index], chosen[0])
    if rng.random() < 0.25:  # noqa: PLR2004
        chosen = [word.upper() if rng.random() < 0.5 else word.title() for word in chosen]  # noqa: PLR2004
    return str(rng.choice([" ", " ", ", ", "  ", "\n"])).join(chosen)

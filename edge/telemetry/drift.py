"""Drift: how far what a model is asked is from what it was trained on. Pure.

Three looks at each column: the population stability index over ten parts of the reference, the
distance of the means in standard deviations, and what is missing more than before.
Parts of a small sample are uncertain: what chance alone gives is taken off.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping
from typing import Final, Literal

import msgspec

from scoring.profiles import Column, Profile, middle

Verdict = Literal["steady", "moved", "drifted", "unknown"]

LEAST_REFERENCE: Final = 30
LEAST_CURRENT: Final = 100
MOVED: Final = 0.1
DRIFTED: Final = 0.25

_PARTS: Final = 10
_HUNDREDTH: Final = 2.33  # standard deviations
_FLOOR: Final = 1e-4
_SHIFT_MOVED: Final = 0.5
_SHIFT_DRIFTED: Final = 1.0
_SHIFT_CERTAIN: Final = 4.0
_MISSING_MOVED: Final = 0.05
_MISSING_DRIFTED: Final = 0.2
_ORDER: Final[tuple[Verdict, ...]] = ("unknown", "steady", "moved", "drifted")


class ColumnDrift(msgspec.Struct, frozen=True, kw_only=True):
    """How far one column is from its reference.

    Attributes:
        verdict: What it comes to.
        psi: The population stability index, without what chance gives.
        shift: Of the mean, in standard deviations of the side that spreads more; None for texts.
        missing: How much more of it is missing, as a part of all.
        new: The part of its values that the reference does not have; of texts.
    """

    verdict: Verdict
    psi: float = 0.0
    shift: float | None = None
    missing: float = 0.0
    new: float = 0.0


class Drift(msgspec.Struct, frozen=True, kw_only=True):
    """How far some rows are from their reference.

    Attributes:
        verdict: The worst of all columns.
        rows: How many were looked at.
        reference: How many the reference has.
        columns: Name to how far; columns that only one side has are `drifted`.
    """

    verdict: Verdict
    rows: int
    reference: int
    columns: dict[str, ColumnDrift]


def compare(reference: Profile, current: Profile) -> Drift:
    """Compares rows with their reference; `unknown` where there are too few of either."""
    names = sorted({*reference.columns, *current.columns})
    enough = reference.rows >= LEAST_REFERENCE and current.rows >= LEAST_CURRENT
    columns = {
        name: _column(reference.columns.get(name), current.columns.get(name), enough=enough)
        for name in names
    }
    worst = max((_ORDER.index(each.verdict) for each in columns.values()), default=0)
    return Drift(
        verdict=_ORDER[worst], rows=current.rows, reference=reference.rows, columns=columns
    )


def _column(reference: Column | None, current: Column | None, *, enough: bool) -> ColumnDrift:
    if not enough:
        return ColumnDrift(verdict="unknown")
    if reference is None or current is None:
        return ColumnDrift(verdict="drifted")
    missing = _missing(current) - _missing(reference)
    if reference.values or current.values:
        psi = _psi(reference.values, current.values)
        new = _part(current.values, {*current.values} - {*reference.values})
        verdict = _worst(_of_psi(psi), _of_missing(missing))
        return ColumnDrift(verdict=verdict, psi=_rounded(psi), missing=_rounded(missing), new=new)
    psi = _psi(*_parts(reference, current))
    shift = _shift(reference, current)
    verdict = _worst(_of_psi(psi), _of_missing(missing), _of_shift(shift, reference, current))
    return ColumnDrift(
        verdict=verdict, psi=_rounded(psi), shift=_rounded(shift), missing=_rounded(missing)
    )


def _psi(reference: Mapping[str, int], current: Mapping[str, int]) -> float:
    """The index over common parts, less what chance gives to a hundredth of equal samples."""
    first, second = sum(reference.values()), sum(current.values())
    if not first or not second:
        return 0.0 if first == second else 1.0
    keys = {*reference, *current}
    total = 0.0
    for key in keys:
        was = max(reference.get(key, 0) / first, _FLOOR)
        now = max(current.get(key, 0) / second, _FLOOR)
        total += (now - was) * math.log(now / was)
    free = len(keys) - 1
    chance = free + _HUNDREDTH * math.sqrt(2 * free)
    return max(0.0, total - chance * (1 / first + 1 / second))


def _parts(reference: Column, current: Column) -> tuple[dict[str, int], dict[str, int]]:
    """Both columns' numbers, in parts of which the reference has about a tenth each."""
    cuts: list[float] = []
    count, total = 0, sum(reference.buckets.values())
    for place, number in sorted((middle(key), n) for key, n in reference.buckets.items()):
        count += number
        if count >= (len(cuts) + 1) * total / _PARTS and count < total:
            cuts.append(place)
    return _cut(reference, cuts), _cut(current, cuts)


def _cut(column: Column, cuts: list[float]) -> dict[str, int]:
    found: dict[str, int] = {}
    for key, count in column.buckets.items():
        part = str(bisect_left(cuts, middle(key)))
        found[part] = found.get(part, 0) + count
    return found


def _shift(reference: Column, current: Column) -> float:
    apart = current.mean - reference.mean
    if not reference.buckets or not current.buckets or not apart:
        return 0.0
    # A constant has no deviation: what leaves it is far away, by its own size.
    deviation = max(reference.deviation, current.deviation) or 0.01 * max(abs(reference.mean), 1e-9)
    return max(-1e6, min(1e6, apart / deviation))


def _of_shift(shift: float, reference: Column, current: Column) -> Verdict:
    numbers = sum(reference.buckets.values()), sum(current.buckets.values())
    chance = math.sqrt(sum(1 / n for n in numbers if n)) * _SHIFT_CERTAIN
    size = abs(shift)
    if size <= chance or size < _SHIFT_MOVED:
        return "steady"
    return "drifted" if size >= _SHIFT_DRIFTED else "moved"


def _of_psi(psi: float) -> Verdict:
    return "drifted" if psi >= DRIFTED else "moved" if psi >= MOVED else "steady"


def _of_missing(more: float) -> Verdict:
    if more >= _MISSING_DRIFTED:
        return "drifted"
    return "moved" if more >= _MISSING_MOVED else "steady"


def _missing(column: Column) -> float:
    total = column.count + column.missing
    total = max(total, sum(column.buckets.values()) + column.missing)
    return column.missing / total if total else 0.0


def _part(values: Mapping[str, int], keys: set[str]) -> float:
    total = sum(values.values())
    return _rounded(sum(values[key] for key in keys) / total) if total else 0.0


def _worst(*verdicts: Verdict) -> Verdict:
    return max(verdicts, key=_ORDER.index)


def _rounded(value: float) -> float:
    return round(value, 4)

"""Profiles of data: what each column looks like, small enough to be told, and added up exactly.

Pure, and without numpy: a device's numbers are added up and compared where nothing else is
installed. A number falls into a bucket whose bounds depend on nothing but the number, so that
profiles of different devices, days, and of the training sample can be added and compared.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Final

import msgspec

GAMMA: Final = 1.1
"""The ratio of a bucket's bounds."""

MOST_VALUES: Final = 64
MOST_TEXT: Final = 64
OTHER: Final = "\u2026"
"""Stands for values beyond the first `MOST_VALUES`."""

_LOG_GAMMA: Final = math.log(GAMMA)
_SMALLEST: Final = 1e-9
_MOST_BUCKET: Final = 7447  # the greatest float is just above it

Amount = Annotated[int, msgspec.Meta(ge=0)]


class Column(msgspec.Struct, omit_defaults=True):
    """What the values of one column look like.

    Attributes:
        count: Of numbers and texts.
        missing: NaN, infinite or null.
        mean: Of the numbers.
        m2: Sum of the squares of their distances from the mean.
        low: The least number.
        high: The greatest number.
        buckets: Number of a bucket (see `bucket`) to how many fell into it.
        values: Text to how many there were, for columns of texts and truth values.
    """

    count: Amount = 0
    missing: Amount = 0
    mean: float = 0.0
    m2: float = 0.0
    low: float | None = None
    high: float | None = None
    buckets: dict[str, Amount] = msgspec.field(default_factory=dict)
    values: dict[str, Amount] = msgspec.field(default_factory=dict)

    @property
    def deviation(self) -> float:
        """The standard deviation of the numbers."""
        numbers = sum(self.buckets.values())
        return math.sqrt(max(self.m2, 0.0) / numbers) if numbers else 0.0

    def add(self, value: object) -> None:
        """Takes one value."""
        if value is None or (isinstance(value, float) and not math.isfinite(value)):
            self.missing += 1
        elif isinstance(value, int | float) and not isinstance(value, bool):
            self._add_number(float(value))
        else:
            self.count += 1
            self._add_text(str(value).lower() if isinstance(value, bool) else str(value), 1)

    def _add_number(self, number: float) -> None:
        key = bucket(number)
        self.merge(Column(1, 0, number, 0.0, number, number, {key: 1}))

    def _add_text(self, text: str, count: int) -> None:
        text = text if len(text) <= MOST_TEXT else text[: MOST_TEXT - 1] + OTHER
        if text not in self.values and len(self.values) >= MOST_VALUES:
            text = OTHER
        self.values[text] = self.values.get(text, 0) + count

    def merge(self, other: Column) -> None:
        """Adds another part of the same column."""
        mine, its = sum(self.buckets.values()), sum(other.buckets.values())
        if its:
            apart = other.mean - self.mean
            self.mean += apart * its / (mine + its)
            self.m2 += other.m2 + apart * apart * mine * its / (mine + its)
            self.low = _chosen(min, self.low, other.low)
            self.high = _chosen(max, self.high, other.high)
        self.count += other.count
        self.missing += other.missing
        for key, count in other.buckets.items():
            self.buckets[key] = self.buckets.get(key, 0) + count
        for text, count in other.values.items():
            self._add_text(text, count)


class Profile(msgspec.Struct, omit_defaults=True):
    """What some rows look like.

    Attributes:
        rows: How many.
        columns: Name to column.
    """

    rows: Amount = 0
    columns: dict[str, Column] = msgspec.field(default_factory=dict)

    def merge(self, other: Profile) -> None:
        """Adds other rows."""
        self.rows += other.rows
        for name, column in other.columns.items():
            self.columns.setdefault(name, Column()).merge(column)

    def add(self, row: Mapping[str, object]) -> None:
        """Takes one row."""
        self.rows += 1
        for name, value in row.items():
            self.columns.setdefault(name, Column()).add(value)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        found: dict[str, Any] = msgspec.to_builtins(self)
        return found


def of_rows(rows: Iterable[Mapping[str, object]]) -> Profile:
    """The profile of rows."""
    found = Profile()
    for row in rows:
        found.add(row)
    return found


def from_dict(data: Mapping[str, object]) -> Profile | None:
    """What `Profile.to_dict` has made, by whoever sends it; None for anything else."""
    try:
        found = msgspec.convert(dict(data), Profile)
    except (msgspec.ValidationError, RecursionError):
        return None
    return found if all(map(_is_sound, found.columns.values())) else None


def bucket(number: float) -> str:
    """The bucket that a finite number falls into: `0`, or a sign and a power of `GAMMA`."""
    size = abs(number)
    if size < _SMALLEST:
        return "0"
    power = min(math.ceil(math.log(size) / _LOG_GAMMA - 1e-12), _MOST_BUCKET)
    return f"{'-' if number < 0 else '+'}{power}"


def middle(key: str) -> float:
    """A number of a bucket.

    Raises:
        ValueError: There is no such bucket.
    """
    if key == "0":
        return 0.0
    if key[:1] not in {"+", "-"}:
        raise ValueError(f"no bucket: {key}")
    size = math.exp((min(int(key[1:]), _MOST_BUCKET) - 0.5) * _LOG_GAMMA)
    return -size if key.startswith("-") else size


def _chosen(choose: Any, first: float | None, second: float | None) -> float | None:
    there = [number for number in (first, second) if number is not None]
    return choose(there) if there else None


def _is_sound(column: Column) -> bool:
    numbers = (column.mean, column.m2, column.low or 0.0, column.high or 0.0)
    try:
        for key in column.buckets:
            middle(key)
    except (ValueError, OverflowError):
        return False
    return all(map(math.isfinite, numbers))

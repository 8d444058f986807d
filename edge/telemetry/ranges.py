"""Sets of whole numbers that mostly follow one another, as first and last of each run. Pure."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator

Range = tuple[int, int]


class Ranges:
    """A set of numbers from 0 on.

    Args:
        runs: First and last of each run, in order, with a gap between each two.
    """

    def __init__(self, runs: Iterable[Range] = ()) -> None:
        self._firsts: list[int] = []
        self._lasts: list[int] = []
        for first, last in runs:
            self.add(first, last)

    def __iter__(self) -> Iterator[Range]:
        return zip(self._firsts, self._lasts, strict=True)

    def __len__(self) -> int:
        """How many runs there are."""
        return len(self._firsts)

    def __contains__(self, number: int) -> bool:
        place = bisect_right(self._firsts, number) - 1
        return place >= 0 and number <= self._lasts[place]

    def add(self, first: int, last: int) -> None:
        """Adds all numbers from the first to the last."""
        if first > last:
            return
        # The runs that it touches, those beside it included, become one.
        begin = bisect_left(self._lasts, first - 1)
        end = bisect_right(self._firsts, last + 1)
        if begin < end:
            first = min(first, self._firsts[begin])
            last = max(last, self._lasts[end - 1])
        self._firsts[begin:end] = [first]
        self._lasts[begin:end] = [last]

    def within(self, first: int, last: int) -> list[Range]:
        """The runs of those from the first to the last."""
        begin = bisect_left(self._lasts, first)
        end = bisect_right(self._firsts, last)
        pairs = zip(self._firsts[begin:end], self._lasts[begin:end], strict=True)
        return [(max(first, low), min(last, high)) for low, high in pairs]


def runs(numbers: Iterable[int]) -> list[Range]:
    """The runs of some numbers, in any order."""
    return list(Ranges((number, number) for number in sorted(numbers)))

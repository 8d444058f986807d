"""Runs of numbers, compared with plain sets."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from edge.telemetry.ranges import Ranges, runs

_SPANS = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 8)), max_size=30)


@given(_SPANS, st.integers(0, 70), st.integers(0, 70))
def test_they_hold_what_a_set_holds(spans: list[tuple[int, int]], low: int, high: int) -> None:
    ranges, plain = Ranges(), set[int]()
    for first, more in spans:
        ranges.add(first, first + more)
        plain |= set(range(first, first + more + 1))
    assert {n for a, b in ranges for n in range(a, b + 1)} == plain
    assert all(a <= b for a, b in ranges)
    pairs = list(ranges)
    assert all(b + 1 < c for (_, b), (c, _) in itertools.pairwise(pairs))
    assert [n in ranges for n in range(80)] == [n in plain for n in range(80)]
    inside = [n for a, b in ranges.within(low, high) for n in range(a, b + 1)]
    assert inside == sorted(n for n in plain if low <= n <= high)
    assert list(Ranges(ranges)) == pairs == runs(plain)


def test_an_empty_span_adds_nothing() -> None:
    ranges = Ranges()
    ranges.add(3, 2)
    assert len(ranges) == 0

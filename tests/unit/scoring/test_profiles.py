"""Profiles add up exactly, whatever the order and the parts."""

from __future__ import annotations

import json
import math
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scoring.profiles import GAMMA, MOST_VALUES, OTHER, Column, bucket, from_dict, middle, of_rows

_NUMBERS = st.floats(-1e6, 1e6).filter(lambda x: x == 0 or abs(x) > 1e-6)
_VALUES = st.one_of(_NUMBERS, st.none(), st.just(math.nan), st.booleans(), st.sampled_from("abc"))


@given(st.lists(_VALUES, max_size=40), st.integers(0, 40))
def test_parts_add_up_to_the_whole(values: list[object], at: int) -> None:
    whole = of_rows({"x": value} for value in values)
    parts = of_rows({"x": value} for value in values[:at])
    parts.merge(of_rows({"x": value} for value in values[at:]))
    assert parts.rows == whole.rows == len(values)
    for name, column in whole.columns.items():
        other = parts.columns[name]
        assert (other.count, other.missing, other.low, other.high) == (
            column.count, column.missing, column.low, column.high,
        )  # fmt: skip
        assert (other.buckets, other.values) == (column.buckets, column.values)
        assert other.mean == pytest.approx(column.mean, rel=1e-9, abs=1e-6)
        assert other.m2 == pytest.approx(column.m2, rel=1e-6, abs=1e-3)
    assert from_dict(json.loads(json.dumps(whole.to_dict()))) == whole


@given(st.lists(_NUMBERS, min_size=1, max_size=50))
def test_moments_are_those_of_the_numbers(numbers: list[float]) -> None:
    column = of_rows({"x": number} for number in numbers).columns["x"]
    assert column.mean == pytest.approx(statistics.fmean(numbers), rel=1e-9, abs=1e-6)
    assert column.deviation == pytest.approx(statistics.pstdev(numbers), rel=1e-6, abs=1e-3)
    assert (column.low, column.high) == (min(numbers), max(numbers))


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_buckets_middle_is_near_its_numbers(number: float) -> None:
    found = middle(bucket(number))
    if abs(number) < 2e-9:
        assert abs(found) < 2e-9
    else:
        assert 1 / GAMMA < found / number < GAMMA
        assert bucket(found) == bucket(number)


def test_many_texts_become_one() -> None:
    column = Column()
    for number in range(500):
        column.add(f"text {number}")
    column.add("long" * 100)
    assert len(column.values) == MOST_VALUES + 1
    assert column.values[OTHER] == 501 - MOST_VALUES


@pytest.mark.parametrize(
    "data",
    [
        {"rows": -1},
        {"rows": "x"},
        {"columns": {"x": {"buckets": {"y": 1}}}},
        {"columns": {"x": {"buckets": {"+": 1}}}},
        {"columns": {"x": {"buckets": {"+1": -1}}}},
        {"columns": {"x": {"mean": "high"}}},
        {"columns": [1]},
    ],
)
def test_what_is_no_profile_is_none(data: dict[str, object]) -> None:
    assert from_dict(data) is None

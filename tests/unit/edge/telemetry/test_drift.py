"""Drift is found where it is, and chance is not taken for it."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from edge.telemetry.drift import compare
from scoring.profiles import Profile, of_rows

Draw = Callable[[random.Random], object]


def rows(draw: Draw, count: int, seed: int) -> Profile:
    source = random.Random(seed)
    return of_rows({"x": draw(source)} for _ in range(count))


DRAWS: list[Draw] = [
    lambda r: r.gauss(0, 1),
    lambda r: r.gauss(295, 2),
    lambda r: r.lognormvariate(3, 2),
    lambda r: r.randrange(4),
    lambda r: r.choice("abcdef"),
    lambda r: r.random() < 0.1,
    lambda r: 7.0,
    lambda r: None if r.random() < 0.1 else r.gauss(5, 1),
]


@pytest.mark.parametrize("draw", DRAWS)
@pytest.mark.parametrize("reference", [50, 150, 2000])
def test_the_same_is_steady(draw: Draw, reference: int) -> None:
    found = [compare(rows(draw, reference, s), rows(draw, 500, 100 + s)) for s in range(15)]
    verdicts = [each.verdict for each in found]
    assert verdicts.count("drifted") == 0
    assert verdicts.count("moved") <= 3


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (lambda r: r.gauss(0, 1), lambda r: r.gauss(1.5, 1)),
        (lambda r: r.gauss(0, 1), lambda r: r.gauss(0, 4)),
        (lambda r: r.gauss(295, 2), lambda r: r.gauss(299, 2)),
        (lambda r: r.choice("abc"), lambda r: r.choice("abcdef")),
        (lambda r: r.random() < 0.1, lambda r: r.random() < 0.5),
        (lambda r: 7.0, lambda r: 8.0),
        (lambda r: r.gauss(5, 1), lambda r: None if r.random() < 0.3 else r.gauss(5, 1)),
        (lambda r: r.gauss(5, 1), lambda r: "text"),
    ],
)
def test_what_moved_is_found(before: Draw, after: Draw) -> None:
    for seed in range(5):
        assert compare(rows(before, 150, seed), rows(after, 500, seed + 9)).verdict == "drifted"


def test_of_few_rows_nothing_is_said() -> None:
    few = compare(rows(DRAWS[0], 5, 1), rows(DRAWS[0], 500, 2))
    assert (few.verdict, few.reference, few.rows) == ("unknown", 5, 500)
    assert compare(rows(DRAWS[0], 500, 1), rows(DRAWS[0], 20, 2)).verdict == "unknown"
    assert compare(Profile(), Profile()).verdict == "unknown"


def test_a_column_that_is_gone_or_new_has_drifted() -> None:
    before = of_rows({"x": 1.0, "y": n} for n in range(200))
    after = of_rows({"x": 1.0, "z": n} for n in range(200))
    found = compare(before, after)
    assert {name: each.verdict for name, each in found.columns.items()} == {
        "x": "steady",
        "y": "drifted",
        "z": "drifted",
    }

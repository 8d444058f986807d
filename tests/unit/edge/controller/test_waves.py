"""Waves: how many devices, and which."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.controller import waves
from edge.controller.entities import Device, Plan
from scoring.errors import UsageError


def devices(count: int, *, offline: int = 0) -> list[Device]:
    return [Device(name=f"d{n}", site="s", online=n >= offline) for n in range(count)]


def sizes(plan: Plan, count: int) -> list[int]:
    found = Counter(member.wave for member in waves.members("r:1", plan, devices(count)))
    return [found[wave] for wave in sorted(found)]


@pytest.mark.parametrize(
    ("texts", "count", "expected"),
    [
        (("1", "10%", "50%", "100%"), 100, [1, 9, 40, 50]),
        (("1", "10%", "50%", "100%"), 5, [1, 2, 2]),
        (("1", "10%", "50%", "100%"), 1, [1]),
        (("1",), 10, [1, 9]),
        (("33%", "66%"), 10, [4, 3, 3]),
        (("100",), 3, [3]),
        (("0.1%", "100%"), 2000, [2, 1998]),
        (("100%",), 0, []),
    ],
)
def test_how_large_waves_are(texts: tuple[str, ...], count: int, expected: list[int]) -> None:
    assert sizes(Plan(waves=texts), count) == expected


@pytest.mark.parametrize(
    "wrong",
    [
        *({"waves": ()}, {"waves": ("0",)}, {"waves": ("x",)}, {"waves": ("101%",)}),
        *({"waves": ("10%", "10%")}, {"waves": ("50%", "10%")}, {"waves": ("-1",)}),
        *({"waves": ("1.5",)}, {"most_failures": "many"}, {"timeout_s": 5.0}),
        *({"timeout_s": float("inf")}, {"timeout_s": float("nan")}, {"between_s": -1.0}),
        *({"first": "area"},),
    ],
)
def test_plans_that_cannot_be_followed(wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        waves.check(Plan(**wrong), longest_soak_s=10.0)  # type: ignore[arg-type]


def test_devices_that_are_there_come_first_and_the_order_changes() -> None:
    fleet = devices(50, offline=10)
    one = waves.members("iris:1", Plan(waves=("80%",)), fleet)
    assert {m.device for m in one if m.wave == 1} == {f"d{n}" for n in range(10)}
    two = waves.members("iris:2", Plan(waves=("80%",)), fleet)
    assert [m.device for m in one] != [m.device for m in two]
    assert waves.members("iris:2", Plan(waves=("80%",)), fleet[::-1]) == two


def test_chosen_devices_are_the_first_wave() -> None:
    plan = Plan(waves=("1", "50%"), first="device in ['d3', 'd4']")
    found = waves.members("r:1", plan, devices(10))
    assert {m.device for m in found if m.wave == 0} == {"d3", "d4"}
    assert Counter(m.wave for m in found) == {0: 2, 1: 3, 2: 5}


@pytest.mark.parametrize(
    ("text", "size", "expected"), [("0", 10, 0), ("2", 1, 2), ("10%", 9, 0), ("10%", 10, 1)]
)
def test_how_many_may_fail(text: str, size: int, expected: int) -> None:
    assert waves.allowed(Plan(most_failures=text), size) == expected


@given(
    st.lists(st.integers(1, 100), min_size=1, max_size=4, unique=True).map(sorted),
    st.integers(0, 300),
)
def test_every_device_is_in_one_wave_and_no_wave_is_empty(steps: list[int], count: int) -> None:
    plan = Plan(waves=tuple(f"{step}%" for step in steps))
    waves.check(plan)
    found = waves.members("r:1", plan, devices(count))
    assert Counter(m.device for m in found) == Counter(d.name for d in devices(count))
    assert {m.wave for m in found} == set(range(len({m.wave for m in found})))

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.server.asyncjobs.prefer import parse


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("respond-async", (True, 0)),
        ("Respond-Async", (True, 0)),
        ("respond-async, wait=10", (True, 10)),
        ('wait="5", respond-async', (True, 5)),
        ("respond-async;foo=bar, wait=10; x", (True, 10)),
        ("respond-async, wait=99999", (True, 60)),
        ("respond-async, wait=-1, wait=3", (True, 0)),
        ("respond-async, wait=1e9", (True, 0)),
        ("respond-asynchronously", (False, 0)),
        ('note="a, respond-async"', (False, 0)),
        ("return=minimal", (False, 0)),
        (",,;=", (False, 0)),
        ("", (False, 0)),
    ],
)
def test_preferences(header: str, expected: tuple[bool, float]) -> None:
    assert parse(header) == expected


@given(st.text(max_size=60))
def test_nothing_breaks_it(header: str) -> None:
    preference = parse(header)
    assert 0 <= preference.wait_s <= 60


@pytest.mark.parametrize("unit", ['"', '"\\', "a", '"a,', " ", ",", ";", "=", '\\"'])
def test_long_headers_take_no_time(unit: str) -> None:
    begun = time.perf_counter()
    for header in (unit * 20_000, f'a="{unit * 20_000}', f"respond-async,{unit * 20_000}"):
        parse(header)
    assert time.perf_counter() - begun < 2

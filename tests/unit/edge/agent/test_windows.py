"""Time windows, in the device's own local time."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.agent.windows import Local, is_open, local, minutes_until_open
from edge.protocol.messages import Window

minutes = st.integers(0, 1439)
days = st.integers(0, 6)
windows = st.builds(
    Window, begins=minutes, ends=minutes, days=st.lists(days, unique=True).map(tuple)
)
moments = st.builds(Local, days, minutes)


@pytest.mark.parametrize(
    ("window", "moment", "expected"),
    [
        (None, Local(3, 700), True),
        (Window(begins=60, ends=120), Local(0, 60), True),
        (Window(begins=60, ends=120), Local(0, 119), True),
        (Window(begins=60, ends=120), Local(0, 120), False),
        (Window(begins=60, ends=120), Local(0, 59), False),
        (Window(begins=60, ends=120, days=(1, 2)), Local(0, 60), False),
        (Window(begins=60, ends=120, days=(1, 2)), Local(2, 60), True),
        (Window(begins=1380, ends=60), Local(0, 1400), True),
        (Window(begins=1380, ends=60), Local(0, 10), True),
        (Window(begins=1380, ends=60), Local(0, 700), False),
        # From Sunday's evening into Monday's morning, and not from Monday's evening.
        (Window(begins=1380, ends=60, days=(6,)), Local(0, 10), True),
        (Window(begins=1380, ends=60, days=(6,)), Local(0, 1400), False),
        (Window(begins=1380, ends=60, days=(0,)), Local(0, 10), False),
        (Window(begins=0, ends=0), Local(4, 900), True),
        (Window(begins=600, ends=600, days=(4,)), Local(5, 599), True),
        (Window(begins=600, ends=600, days=(4,)), Local(5, 600), False),
    ],
)
def test_windows(window: Window | None, moment: Local, expected: bool) -> None:
    assert is_open(window, moment) == expected


def later(moment: Local, count: int) -> Local:
    total = moment.day * 1440 + moment.minute + count
    return Local(total // 1440 % 7, total % 1440)


@given(window=windows, moment=moments)
def test_the_wait_ends_when_the_window_opens(window: Window, moment: Local) -> None:
    wait = minutes_until_open(window, moment)
    assert is_open(window, later(moment, wait))
    assert 0 <= wait <= 7 * 1440
    if wait:
        assert not is_open(window, later(moment, wait - 1))


def test_local_time_is_that_of_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "XXX-05:30")
    time.tzset()
    try:
        assert local(0) == Local(3, 330)  # 1 January 1970 was a Thursday
    finally:
        monkeypatch.undo()
        time.tzset()

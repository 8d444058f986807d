"""What people write."""

from __future__ import annotations

import pytest

from edge.controller import texts
from edge.protocol.messages import Window
from scoring.errors import UsageError


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("30m", 1800), ("2 h", 7200), ("1d", 86400), ("5", 5),
                          ("250ms", 0.25), ("1.5m", 90)],
)  # fmt: skip
def test_durations(text: str, seconds: float) -> None:
    assert texts.duration(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "-1s", "1w", "1e3", "\u0661s", "1 s s"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        texts.duration(text, "soak")
    assert caught.value.where == "soak"


def test_rates() -> None:
    assert [texts.rate(text) for text in ("0", "500k", "2M", "1.5MB/s", "1G")] == [
        0, 500_000, 2_000_000, 1_500_000, 1_000_000_000,
    ]  # fmt: skip
    with pytest.raises(UsageError):
        texts.rate("fast")


def test_windows() -> None:
    assert texts.window("") is None
    assert texts.window("22:00-4:30") == Window(begins=1320, ends=270)
    assert texts.window("00:00-23:59/Sat,sun") == Window(begins=0, ends=1439, days=(5, 6))


@pytest.mark.parametrize("text", ["22:00", "24:00-1:00", "1:60-2:00", "1:00-2:00/someday", "a"])
def test_what_is_no_window(text: str) -> None:
    with pytest.raises(UsageError):
        texts.window(text, "window")

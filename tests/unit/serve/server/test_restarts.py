from __future__ import annotations

from dataclasses import dataclass

import pytest
from tenacity import AsyncRetrying, RetryCallState

from serve.server.restarts import DeathWindow, Limits


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_window_is_exceeded_by_one_death_more_than_restarts_are_allowed() -> None:
    window = DeathWindow(Limits(max_restarts=2), Clock())
    seen = []
    for _ in range(3):
        window.add()
        seen.append(window.exceeded())
    assert seen == [False, False, True]


def test_no_restart_at_all_can_be_asked_for() -> None:
    window = DeathWindow(Limits(max_restarts=0), Clock())
    assert not window.exceeded()
    window.add()
    assert window.exceeded()


def test_old_deaths_are_forgotten() -> None:
    clock = Clock()
    window = DeathWindow(Limits(max_restarts=1, window_s=60), clock)
    window.add()
    window.add()
    assert window.exceeded()
    clock.now = 60.5
    assert not window.exceeded()


def test_a_success_clears_the_window() -> None:
    window = DeathWindow(Limits(max_restarts=0), Clock())
    window.add()
    window.clear()
    assert not window.exceeded()


@pytest.mark.parametrize(("attempt", "least"), [(1, 0.1), (2, 0.2), (4, 0.8), (50, 10.0)])
def test_waits_double_up_to_a_limit_with_a_little_jitter(attempt: int, least: float) -> None:
    limits = Limits(first_wait_s=0.1, longest_wait_s=10, jitter_s=0.1)
    state = RetryCallState(AsyncRetrying(), None, (), {})
    state.attempt_number = attempt
    waits = {limits.wait()(state) for _ in range(20)}
    assert all(least <= wait <= least + 0.1 for wait in waits)
    assert len(waits) > 1

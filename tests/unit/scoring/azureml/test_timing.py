from __future__ import annotations

import signal
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from scoring.azureml import timing

if TYPE_CHECKING:
    from collections.abc import Iterator


def wait(seconds: float) -> str:
    time.sleep(seconds)
    return "done"


def test_result_and_elapsed_time() -> None:
    result, elapsed_ms = timing.call(wait, {"seconds": 0.01}, 10_000)
    assert result == "done"
    assert 10 <= elapsed_ms < 5_000


def test_a_call_over_its_time_is_broken_off() -> None:
    start = time.perf_counter()
    with pytest.raises(timing.ScoringExpired):
        timing.call(wait, {"seconds": 60}, 20)
    assert time.perf_counter() - start < 30


def test_no_limit_and_other_threads_only_time() -> None:
    assert timing.call(wait, {"seconds": 0.01}, 0)[0] == "done"
    results: list[Any] = []
    thread = threading.Thread(
        target=lambda: results.append(timing.call(wait, {"seconds": 0.01}, 1))
    )
    thread.start()
    thread.join()
    assert results[0][0] == "done"


@pytest.mark.parametrize("seconds", [0, 60])
def test_the_alarm_is_given_back(seconds: float) -> None:
    received: list[int] = []
    before = signal.signal(signal.SIGALRM, lambda number, frame: received.append(number))
    own = signal.getsignal(signal.SIGALRM)
    try:
        try:
            timing.call(wait, {"seconds": seconds}, 20)
        except timing.ScoringExpired:
            assert seconds
        assert signal.getsignal(signal.SIGALRM) is own
        assert signal.getitimer(signal.ITIMER_REAL)[0] == 0
    finally:
        signal.signal(signal.SIGALRM, before)
    assert not received


@pytest.fixture
def keeping() -> Iterator[None]:
    timing.keep()
    try:
        yield
    finally:
        timing._Alarm.kept = False
        timing.rest()


@pytest.mark.usefixtures("keeping")
def test_an_alarm_that_is_kept_rings_for_each_call_in_its_own_time() -> None:
    before = signal.getsignal(signal.SIGALRM)
    for limit_ms in (100, 10_000, 150, 30):
        assert timing.call(wait, {"seconds": 0.01}, limit_ms)[0] == "done"
        start = time.perf_counter()
        if limit_ms < 1000:
            with pytest.raises(timing.ScoringExpired):
                timing.call(wait, {"seconds": 60}, limit_ms)
            assert limit_ms / 1000 <= time.perf_counter() - start < 30
    timing.rest()
    assert signal.getsignal(signal.SIGALRM) is before
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0


@pytest.mark.usefixtures("keeping")
def test_a_kept_alarm_of_a_call_that_is_over_breaks_nothing_off() -> None:
    assert timing.call(wait, {"seconds": 0}, 50)[0] == "done"
    time.sleep(0.2)
    assert timing.call(wait, {"seconds": 0.2}, 10_000)[0] == "done"


@pytest.mark.usefixtures("keeping")
def test_a_script_that_takes_the_alarm_is_limited_all_the_same() -> None:
    def takes_it() -> None:
        signal.signal(signal.SIGALRM, signal.SIG_IGN)
        signal.alarm(0)

    timing.call(takes_it, {}, 10_000)
    with pytest.raises(timing.ScoringExpired):
        timing.call(wait, {"seconds": 60}, 20)


@pytest.mark.parametrize("inner_s", [0, 60])
def test_a_call_within_a_call_leaves_the_outer_one_its_time(inner_s: float) -> None:
    def outer() -> None:
        timing.call(wait, {"seconds": inner_s}, 60_000)
        wait(60)

    start = time.perf_counter()
    with pytest.raises(timing.ScoringExpired):
        timing.call(outer, {}, 50)
    assert time.perf_counter() - start < 30
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0

from __future__ import annotations

import signal
import threading
import time
from typing import Any

import pytest

from scoring.azureml import timing


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

"""Rates, slowness, and the end of it."""

from __future__ import annotations

import threading

import pytest

from edge.agent.throttle import Slowness, Stop, StoppedError, Throttle


def test_stopping_wakes_whoever_waits() -> None:
    stop, woken = Stop(), threading.Event()
    stop.check()
    stop.wait(0)
    with stop.waking(woken.set):
        stop.set()
    assert woken.is_set()
    assert stop.is_set
    with pytest.raises(StoppedError):
        stop.check()
    with pytest.raises(StoppedError):
        stop.wait(60)


def test_what_is_over_is_not_woken() -> None:
    stop, woken = Stop(), threading.Event()
    with stop.waking(woken.set):
        pass
    stop.set()
    assert not woken.is_set()


def test_no_rate_no_delay() -> None:
    throttle = Throttle()
    assert throttle.piece(1000) == 1000
    assert throttle.delay(10**9) == 0


def test_a_rate_is_shared_and_can_be_set_anew() -> None:
    now = [0.0]
    throttle = Throttle(1000, steady=lambda: now[0])
    assert throttle.piece(65536) == 250
    waited = 0.0
    for _ in range(100):
        delay = throttle.delay(100)
        waited += delay
        now[0] += delay
    assert 9.5 <= waited <= 10
    now[0] += 1000  # a long pause allows no burst beyond a quarter of a second
    assert throttle.delay(1000) >= 0.75
    throttle.rate = 0
    assert throttle.delay(1000) == 0


def test_slow_on_average_and_not_for_a_moment() -> None:
    now = [0.0]
    slowness = Slowness(100, 10, steady=lambda: now[0])
    assert not slowness.too_slow(1000)
    now[0] = 9
    assert not slowness.too_slow(0)
    now[0] = 10
    assert not slowness.too_slow(0)
    now[0] = 20
    assert slowness.too_slow(999)


def test_what_we_wait_on_purpose_is_not_slow() -> None:
    now = [0.0]
    slowness = Slowness(100, 10, steady=lambda: now[0])
    for _ in range(20):
        now[0] += 5
        assert not slowness.too_slow(10, waited_s=5)

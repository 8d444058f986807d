"""When a worker is replaced for its memory, and how much a process and its children hold."""

from __future__ import annotations

import os
import subprocess
import sys

from serve.server.footprint import MIB, Leash, held_bytes
from serve.server.restarts import Limits

LIMITS = Limits(worker_max_mib=100, replace_pause_s=10, longest_replace_pause_s=60)


class Time:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def leash() -> tuple[Leash, Time]:
    clock = Time()
    return Leash(LIMITS, clock), clock


def test_a_worker_within_the_limit_is_fine() -> None:
    judge, clock = leash()
    clock.now += 5000
    assert judge.judge(1000, 100 * MIB) == "fine"


def test_a_worker_that_leaks_is_replaced_once_it_is_old_enough() -> None:
    judge, clock = leash()
    clock.now += 30
    assert judge.judge(1000, 101 * MIB) == "replace"
    assert judge.pause_s == 10


def test_a_leak_that_takes_longer_than_the_pause_never_waits() -> None:
    judge, clock = leash()
    for _ in range(20):
        ready_at = clock.now
        clock.now += 5
        assert judge.judge(ready_at, 50 * MIB) == "fine"
        clock.now += 10
        assert judge.judge(ready_at, 101 * MIB) == "replace"


def test_a_model_that_needs_more_from_the_start_is_replaced_ever_more_rarely() -> None:
    judge, clock = leash()
    ages = []
    for _ in range(5):
        ready_at = clock.now
        verdicts: list[str] = []
        while not verdicts or verdicts[-1] != "replace":
            clock.now += 1
            verdicts.append(judge.judge(ready_at, 300 * MIB))
        assert verdicts[0] == "too_soon", "it is said"
        assert set(verdicts[1:-1]) == {"waiting"}, "and not again"
        ages.append(clock.now - ready_at)
    assert ages == [20, 40, 60, 60, 60]


def test_one_that_served_well_for_long_is_forgiven() -> None:
    judge, clock = leash()
    clock.now += 1
    assert judge.judge(1000, 300 * MIB) == "too_soon"
    clock.now += 3600
    assert judge.judge(clock.now - 30, 50 * MIB) == "fine"
    assert judge.pause_s == 10


def test_a_failed_attempt_lengthens_the_pause() -> None:
    judge, clock = leash()
    judge.lengthen()
    clock.now += 15
    assert judge.judge(1000, 300 * MIB) == "too_soon"
    assert judge.pause_s == 40


SLEEPER = "import sys; held = bytearray(b'x' * (%d << 20)); print('ok', flush=True); %s"
WAIT = "sys.stdin.read()"


def test_a_process_holds_what_is_resident() -> None:
    with _start(SLEEPER % (60, WAIT)) as process:
        assert 60 * MIB < held_bytes(process.pid) < 120 * MIB


def test_children_count_and_shared_pages_count_once() -> None:
    fork = "import os; os.fork() and None; " + WAIT
    with _start(SLEEPER % (100, fork)) as process:
        alone = held_bytes(process.pid)
        assert 100 * MIB < alone < 180 * MIB


def test_a_process_that_is_gone_holds_nothing() -> None:
    with _start(SLEEPER % (1, WAIT)) as process:
        pid = process.pid
    assert held_bytes(pid) == 0


class _start:  # noqa: N801 - reads as a function
    def __init__(self, code: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )

    def __enter__(self) -> subprocess.Popen[bytes]:
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == b"ok\n"
        assert os.getpgid(self.process.pid) == self.process.pid
        return self.process

    def __exit__(self, *_: object) -> None:
        self.process.communicate(timeout=10)

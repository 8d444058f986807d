from __future__ import annotations

import asyncio
import functools
from typing import Any

import pytest

from scoring.azureml import coroutines, timing


async def double(value: int) -> tuple[int, Any]:
    await asyncio.sleep(0)
    return 2 * value, asyncio.get_running_loop()


def call(function: Any, **arguments: Any) -> Any:
    return coroutines.complete(function(**arguments), None)


def test_what_needs_no_waiting_stays_itself() -> None:
    assert coroutines.complete(5, None) == 5


def test_a_coroutine_is_waited_for_and_keeps_one_loop() -> None:
    (first, loop), (second, same) = call(double, value=1), call(double, value=2)
    assert (first, second) == (2, 4)
    assert loop is same


def test_it_works_inside_a_running_loop() -> None:
    async def main() -> int:
        return int(call(double, value=3)[0])

    assert asyncio.run(main()) == 6


def test_on_a_loop_of_this_thread() -> None:
    loop = coroutines.new_loop()
    try:
        assert coroutines.complete(double(4), loop) == (8, loop)
    finally:
        loop.close()
        asyncio.set_event_loop(None)


async def values() -> Any:
    yield 1


class Calls:
    async def __call__(self, data: Any) -> Any:
        return data


@functools.wraps(double)
def waits(value: int) -> Any:
    return asyncio.run(double(value))


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (double, True),
        (values, True),
        (functools.partial(double, 1), True),
        (Calls(), True),
        (waits, False),
        (functools.partial(waits, 1), False),
        (len, False),
        (int, False),
        (lambda: None, False),
    ],
    ids=["async", "generator", "partial", "object", "wrapper", "partial 2", "C", "class", "lambda"],
)
def test_what_is_asynchronous(function: Any, expected: bool) -> None:
    assert coroutines.is_async(function) is expected


def test_iterated_values_are_closed() -> None:
    closed: list[bool] = []

    async def values() -> Any:
        try:
            for number in range(3):
                await asyncio.sleep(0)
                yield number
        finally:
            closed.append(True)

    assert list(coroutines.Iterated(values())) == [0, 1, 2]
    some = coroutines.Iterated(values())
    assert next(some) == 0
    some.close()
    assert closed == [True, True]


def test_errors_and_time_limits_pass_through() -> None:
    cancelled: list[bool] = []

    async def wait() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    async def fail() -> None:
        raise ValueError("own")

    with pytest.raises(ValueError, match="own"):
        call(fail)
    with pytest.raises(timing.ScoringExpired):
        timing.call(lambda: call(wait), {}, 50)
    call(double, value=1)  # The loop has turned since.
    assert cancelled

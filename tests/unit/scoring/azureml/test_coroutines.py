from __future__ import annotations

import asyncio
import functools
from typing import Any

import pytest

from scoring.azureml import coroutines, timing


async def double(value: int) -> tuple[int, Any]:
    await asyncio.sleep(0)
    return 2 * value, asyncio.get_running_loop()


def test_a_plain_function_stays_itself() -> None:
    def plain() -> None:
        pass

    assert coroutines.synchronous(plain) is plain


def test_a_coroutine_function_waits_and_keeps_one_loop() -> None:
    function = coroutines.synchronous(double)
    (first, loop), (second, same) = function(value=1), function(value=2)
    assert (first, second) == (2, 4)
    assert loop is same


def test_it_works_inside_a_running_loop() -> None:
    async def main() -> int:
        return int(coroutines.synchronous(double)(value=3)[0])

    assert asyncio.run(main()) == 6


def test_decorated_coroutine_functions_are_known() -> None:
    @functools.wraps(double)
    def wrapper(value: int) -> Any:
        return double(value + 1)

    assert coroutines.synchronous(wrapper)(value=1)[0] == 4


def test_decorators_that_wait_by_themselves_are_left_alone() -> None:
    @functools.wraps(double)
    def wrapper(value: int) -> Any:
        return asyncio.run(double(value))

    assert coroutines.synchronous(wrapper)(value=4)[0] == 8


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
        coroutines.synchronous(fail)()
    with pytest.raises(timing.ScoringExpired):
        timing.call(coroutines.synchronous(wait), {}, 50)
    coroutines.synchronous(double)(value=1)  # The loop has turned since.
    assert cancelled

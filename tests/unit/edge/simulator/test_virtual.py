"""Made-up time."""

from __future__ import annotations

from edge.simulator.virtual import VirtualTime


def test_things_happen_in_their_order_and_at_their_moment() -> None:
    time, seen = VirtualTime(), list[tuple[str, float]]()
    time.after(2, lambda: seen.append(("b", time.steady())))
    time.after(1, lambda: seen.append(("a", time.steady())))
    time.after(2, lambda: seen.append(("c", time.steady())))
    time.pass_(1.5)
    assert seen == [("a", 1)]
    time.pass_(10)
    assert seen == [("a", 1), ("b", 2), ("c", 2)]
    assert time.steady() == 11.5


def test_what_is_cancelled_is_not_done() -> None:
    time, seen = VirtualTime(), list[int]()
    time.after(1, lambda: seen.append(1)).cancel()
    time.pass_(5)
    assert not seen


def test_what_is_done_may_have_more_done() -> None:
    time, seen = VirtualTime(), list[float]()

    def again() -> None:
        seen.append(time.steady())
        time.after(1, again)

    time.after(0, again)
    time.pass_(3)
    assert seen == [0, 1, 2, 3]


def test_until_something_is_true() -> None:
    time = VirtualTime()
    assert time.until(lambda: time.steady() >= 3, 10)
    assert time.steady() == 3
    assert not time.until(lambda: False, 5)
    assert time.steady() == 8
    assert time.wall() - time.steady() == 1_800_000_000

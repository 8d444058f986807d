"""What is asked of the broker anew, and when."""

from __future__ import annotations

from edge.controller.asking import Asking
from edge.protocol.topics import Topic, topic


def everything() -> list[Topic]:
    return [topic("hall", f"camera-{number}", "status") for number in range(5)]


def test_nothing_is_asked_without_a_connection() -> None:
    asking = Asking(first_s=10)
    assert asking.due(1e9, everything) == []
    asking.connected(0)
    asking.lost()
    assert asking.due(1e9, everything) == []


def test_everything_is_asked_for_in_small_parts() -> None:
    asking = Asking(first_s=10, last_s=1000, most=2)
    asking.connected(100)
    assert asking.due(109, everything) == []
    found = [asking.due(110 + number, everything) for number in range(4)]
    assert [len(one) for one in found] == [2, 2, 1, 0]
    assert [one for part in found for one in part] == everything()


def test_it_is_asked_for_less_and_less_often() -> None:
    asking = Asking(first_s=10, last_s=35, most=100)
    asking.connected(0)
    when = [now for now in range(200) if asking.due(now, everything)]
    assert when == [10, 30, 65, 100, 135, 170]
    asking.connected(200)
    assert [now for now in range(200, 240) if asking.due(now, everything)] == [210, 230]


def test_a_lost_connection_ends_a_round() -> None:
    asking = Asking(first_s=10, most=2)
    asking.connected(0)
    assert asking.due(10, everything)
    asking.lost()
    assert asking.due(11, everything) == []
    asking.connected(20)
    assert asking.due(21, everything) == []

"""Clocks that lie."""

from __future__ import annotations

import pytest

from edge.agent.clock import Clock

YEAR = 365 * 86400.0
NOW = 60 * YEAR


class Notes:
    """The journal's part that clocks use."""

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}
        self.writes = 0

    def note(self, key: str) -> str | None:
        return self.texts.get(key)

    def set_note(self, key: str, text: str) -> None:
        self.texts[key] = text
        self.writes += 1


class World:
    """A device whose two clocks are set by the test."""

    def __init__(self) -> None:
        self.notes = Notes()
        self.wall = NOW
        self.steady = 100.0

    def clock(self) -> Clock:
        return Clock(self.notes, wall=lambda: self.wall, steady=lambda: self.steady)


def test_without_anything_signed_it_is_the_systems() -> None:
    world = World()
    assert (world.clock().now(), world.clock().floor()) == (NOW, 0.0)
    assert world.clock().moment().steady == 100.0


def test_ten_years_back() -> None:
    world = World()
    clock = world.clock()
    clock.saw_signed(NOW)
    world.wall -= 10 * YEAR
    world.steady += 50
    assert clock.now() == NOW + 50
    assert clock.behind_s() == 10 * YEAR + 50
    world.steady = 3.0  # a restart: the floor is kept, what has passed since is not
    assert world.clock().now() == NOW


def test_ten_years_ahead_does_not_stay() -> None:
    world = World()
    clock = world.clock()
    clock.saw_signed(NOW)
    world.wall += 10 * YEAR
    assert clock.now() == NOW + 10 * YEAR
    clock.keep()
    world.wall = NOW + 5
    assert world.clock().now() == NOW + 5
    assert world.clock().floor() == NOW


def test_the_floor_goes_on_and_is_kept_now_and_then() -> None:
    world = World()
    world.wall = 0.0
    clock = world.clock()
    clock.saw_signed(NOW)
    for _ in range(3600):
        world.steady += 1
        clock.keep()
    assert world.notes.writes == 1 + 6
    world.steady = 0.0
    assert world.clock().now() == NOW + 3600


def test_it_never_goes_down() -> None:
    world = World()
    clock = world.clock()
    clock.saw_signed(NOW)
    clock.saw_signed(NOW - YEAR)
    clock.saw_signed(float("inf"))
    clock.saw_signed(float("nan"))
    clock.saw_signed(1e300)
    assert clock.floor() == NOW
    assert world.notes.writes == 1


@pytest.mark.parametrize("text", ["", "x", "nan", "inf", "-5", "1e300"])
def test_damaged_floors_are_none(text: str) -> None:
    world = World()
    world.notes.texts["clock.floor"] = text
    assert world.clock().floor() == 0.0


def test_a_clock_beyond_all_dates() -> None:
    world = World()
    world.wall = 1e18
    assert world.clock().now() < 253_402_300_800

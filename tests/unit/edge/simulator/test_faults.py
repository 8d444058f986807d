"""Faults: the same for the same seed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.simulator.faults import Broken, Fate, Faults, parse_broken
from scoring.errors import UsageError

DIGEST = f"sha256:{'ab' * 32}"


@given(seed=st.integers(0, 1000), device=st.sampled_from(["one", "two"]))
def test_the_same_seed_has_the_same_fate(seed: int, device: str) -> None:
    faults = Faults(seed=seed, slow=0.5, failing=0.5, offline=0.3, reboots_s=100)
    first, second = Fate(faults, device), Fate(faults, device)
    for _ in range(3):
        assert first.step_s() == second.step_s()
        assert first.online_s() == second.online_s()
        assert first.power_s() == second.power_s()
    assert first.is_slow == second.is_slow
    # Whatever else was asked for in between, a version fails or does not.
    assert first.fails(DIGEST) == first.fails(DIGEST) == second.fails(DIGEST)


@pytest.mark.parametrize("part", [0.0, 0.2, 1.0])
def test_so_many_fail(part: float) -> None:
    faults = Faults(failing=part, slow=part)
    fates = [Fate(faults, f"device-{number}") for number in range(1000)]
    failing = sum(fate.fails(DIGEST) is not None for fate in fates) / 1000
    assert abs(failing - part) < 0.05
    assert abs(sum(fate.is_slow for fate in fates) / 1000 - part) < 0.05


def test_so_much_of_the_time_is_offline() -> None:
    fate = Fate(Faults(offline=0.25, spell_s=10), "device")
    on = off = 0.0
    for _ in range(5000):
        on += fate.online_s() or 0.0
        off += fate.offline_s()
    assert abs(off / (on + off) - 0.25) < 0.02
    assert abs(off / 5000 - 10) < 1


def test_nothing_goes_wrong_by_default() -> None:
    fate = Fate(Faults(), "device")
    assert (fate.is_slow, fate.fails(DIGEST), fate.online_s(), fate.power_s()) == (
        False,
        None,
        None,
        None,
    )


def test_what_is_broken_is_broken_where_it_is_said() -> None:
    faults = Faults(broken=(Broken(package="sha256:ab", devices=frozenset({"one"})),))
    assert Fate(faults, "one").fails(DIGEST) == "soaking"
    assert Fate(faults, "two").fails(DIGEST) is None
    assert Fate(faults, "one").fails(f"sha256:{'cd' * 32}") is None


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("abcd", Broken(package="sha256:abcd")),
        (f"{DIGEST}@probing", Broken(package=DIGEST, phase="probing")),
        ("ab=x, y", Broken(package="sha256:ab", devices=frozenset({"x", "y"}))),
        ("ab@staging=x", Broken(package="sha256:ab", devices=frozenset("x"), phase="staging")),
    ],
)
def test_what_is_broken_can_be_written(text: str, wanted: Broken) -> None:
    assert parse_broken(text) == wanted


@pytest.mark.parametrize("text", ["", "@probing", "=x", "ab@flying", "ab@"])
def test_what_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_broken(text)
    assert "DIGEST@PHASE=DEVICE" in caught.value.hint

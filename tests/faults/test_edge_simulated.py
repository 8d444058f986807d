"""A fleet through days of bad networks, power cuts and killed controllers, in made-up time."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from edge.controller.entities import Plan
from edge.simulator.faults import Broken, Faults
from edge.simulator.roster import names
from scoring import digest as digests
from serve.registry import Registry
from tests.support.simulated_fleet import DAY_S, HOUR_S, Network, SimulatedFleet

LONG = bool(os.environ.get("FIELDPOST_TEST_LONG"))
SEEDS = range(40 if LONG else 2)
AWAY_S = DAY_S if LONG else 2 * HOUR_S
AT_ONCE = Plan(waves=("100%",), timeout_s=600, offline="wait")


@contextmanager
def fleet(folder: Path, count: int = 8, **given: Any) -> Iterator[SimulatedFleet]:
    with Registry(str(folder / "workspace")) as registry:
        found = SimulatedFleet(registry, folder / "trust", names("sim", count), **given)
        found.start_controller()
        for line in found.lines.values():
            line.connect()
        yield found


def active(found: SimulatedFleet, name: str) -> str:
    track = found.lines[name].device.state.tracks.get("main")
    return track.active.package if track is not None and track.active is not None else ""


@pytest.mark.parametrize("seed", SEEDS)
def test_messages_lost_doubled_and_out_of_order(seed: int, tmp_path: Path) -> None:
    network = Network(seed, lost=0.25, twice=0.3, late_s=8.0)
    with fleet(tmp_path, network=network, faults=Faults(seed=seed)) as found:
        for text in ("one", "two"):
            module = found.permit(text)
            found.deploy(module, plan=Plan(timeout_s=1800))
            found.until(lambda: found.state() == "complete", 4 * HOUR_S)
            assert found.counts() == {"good": 8}
            assert {active(found, name) for name in found.lines} == {module.package}


@pytest.mark.timeout(1200)
def test_three_days_offline(tmp_path: Path) -> None:
    """Those that were away get the newest version when they are back, and none between.

    Six hours by default: every timeout is shorter.
    """
    with fleet(tmp_path) as found:
        first, second, third = (found.permit(text) for text in ("one", "two", "three"))
        found.deploy(first, plan=AT_ONCE)
        found.until(lambda: found.state() == "complete", HOUR_S)
        away = list(found.lines)[:3]
        for name in away:
            found.lines[name].cut()
        found.time.pass_(AWAY_S)
        found.deploy(second, plan=AT_ONCE)
        found.time.pass_(AWAY_S)
        found.deploy(third, plan=AT_ONCE)
        found.time.pass_(AWAY_S)
        assert found.counts() == {"good": 5, "started": 3}
        assert all(active(found, name) == first.package for name in away)
        assert not any(found.known()[name].online for name in away)
        seen: dict[str, set[str]] = {name: set() for name in away}
        for name in away:
            found.lines[name].connect()
        for _ in range(300):
            found.time.pass_(0.1)
            for name in away:
                seen[name].add(active(found, name))
        assert all(one == {first.package, third.package} for one in seen.values())
        found.until(lambda: found.counts() == {"good": 8}, HOUR_S)
        assert found.state() == "complete"


@pytest.mark.parametrize("seed", SEEDS)
def test_power_cuts_and_controllers_that_are_killed(seed: int, tmp_path: Path) -> None:
    chance = random.Random(seed)
    network = Network(seed, lost=0.1, twice=0.1, late_s=2.0)
    with fleet(tmp_path, network=network, faults=Faults(seed=seed, step_s=3.0)) as found:
        for text in ("one", "two", "three"):
            module = found.permit(text)
            found.deploy(module, plan=Plan(timeout_s=3600, offline="wait"))
            for _ in range(12):
                found.time.pass_(chance.uniform(0, 15))
                line = found.lines[chance.choice(list(found.lines))]
                line.cut_power()
                line.device.begin()
                found.time.after(chance.uniform(0, 20), line.connect)
                if chance.random() < 0.4:
                    found.kill_controller()
                    found.time.pass_(chance.uniform(0, 60))
                    found.start_controller()
            found.until(lambda: found.state() == "complete", 6 * HOUR_S)
            found.until(lambda: found.counts() == {"good": 8}, HOUR_S)
            assert {active(found, name) for name in found.lines} == {module.package}


@pytest.mark.parametrize("seed", SEEDS)
def test_a_broken_version_never_takes_a_device_from_its_work(seed: int, tmp_path: Path) -> None:
    network = Network(seed, lost=0.2, late_s=3.0)
    chance = random.Random(seed)
    broken_on = frozenset(chance.sample(names("sim", 8), 3))
    text = "two"
    package = digests.of_bytes(text.encode())
    faults = Faults(seed=seed, broken=(Broken(package=package, devices=broken_on),))
    with fleet(tmp_path, network=network, faults=faults) as found:
        first = found.permit("one")
        found.deploy(first, plan=AT_ONCE)
        found.until(lambda: found.state() == "complete", HOUR_S)
        second = found.permit(text)
        found.deploy(second, plan=Plan(waves=("25%", "50%", "100%"), timeout_s=1800))
        for _ in range(720):
            found.time.pass_(5)
            # Whatever happens, each device answers with one of the two that are permitted.
            assert {active(found, name) for name in found.lines} <= {first.package, package}
            if found.state() == "halted":
                break
        assert found.state() == "halted"
        found.time.pass_(HOUR_S)
        for name in broken_on:
            assert active(found, name) == first.package
        states = {one.device: one.state for one in found.fleet.rollout("iris").members}
        told = {name for name, state in states.items() if state != "pending"}
        assert told & broken_on
        for name in set(states) - told:
            assert active(found, name) == first.package
        found.fleet.abort("iris", revert=True)
        found.time.pass_(HOUR_S)
        for name, known in found.known().items():
            # Back to what was before, or, where the new one was good already, a word of why not.
            assert active(found, name) == first.package or known.refused is not None

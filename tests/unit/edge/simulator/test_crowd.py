"""A crowd at a real broker."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from edge.agent.config import Broker
from edge.controller.entities import Plan
from edge.protocol.messages import Module, Soak
from edge.simulator import roster
from edge.simulator.crowd import Crowd, Known, raise_files
from edge.simulator.faults import Broken, Faults
from edge.simulator.wire import Access
from scoring.errors import UsageError
from tests.support import controllers
from tests.support.controllers import Site, eventually

FAST = Faults(step_s=0.05)
AT_ONCE = Plan(waves=("100%",))


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with controllers.site(tmp_path) as site:
        yield site


def crowd(site: Site, count: int, faults: Faults = FAST, **given: float) -> Crowd:
    known = roster.enlist(site.fleet, roster.names("sim", count), "default")
    access = Access(Broker("127.0.0.1", site.broker.port, False), longest_wait_s=1.0)
    metadata = roster.Metadata(site.trust.repository)
    return Crowd(known, access, root=metadata.root, metadata=metadata, faults=faults, **given)


def permit(site: Site, text: str) -> Module:
    return msgspec.structs.replace(site.permit(text), soak=Soak(seconds=0.5))


def all_online(site: Site) -> bool:
    return all(one.online for one in site.fleet.devices())


def test_a_rollout_reaches_all_and_halts_where_it_is_broken(site: Site) -> None:
    first, second = permit(site, "first"), permit(site, "second")
    broken = Broken(package=second.package, devices=frozenset({"sim-0003"}))
    site.controller()
    with crowd(site, 12, Faults(step_s=0.05, broken=(broken,))) as found:
        eventually(lambda: all_online(site))
        site.fleet.deploy("iris", {"main": first}, condition="*", plan=AT_ONCE)
        assert site.until("complete") == {"good": 12}
        assert found.tally().packages == {first.package: 12}
        site.fleet.deploy("iris", {"main": second}, condition="*", plan=AT_ONCE)
        counts = site.until("halted")
        assert counts["failed"] == 1
        eventually(lambda: found.tally().phases.get("reverted") == 1)
        assert found.devices["sim-0003"].state.tracks["main"].active == first
    eventually(lambda: not any(one.online for one in site.fleet.devices()))


def test_all_come_back_after_the_broker_was_killed(site: Site) -> None:
    site.controller()
    with crowd(site, 20) as found:
        eventually(lambda: all_online(site))
        for _ in range(2):  # the numbers of sockets are used again
            site.broker.kill()
            eventually(lambda: found.tally().connected == 0)
            site.broker.start()
            eventually(lambda: found.tally().connected == 20)
        sessions = {name: wire.sessions for name, wire in found.wires.items()}
        eventually(lambda: {one.name: one.session for one in site.fleet.devices()} == sessions)


def test_spells_and_power_cuts_end_at_the_desired_state(site: Site) -> None:
    site.controller()
    module = permit(site, "first")
    faults = Faults(step_s=0.05, offline=0.3, spell_s=0.5, reboots_s=4.0, seed=1)
    with crowd(site, 10, faults) as found:
        site.fleet.deploy("iris", {"main": module}, condition="*", plan=AT_ONCE)
        assert site.until("complete") == {"good": 10}
        eventually(lambda: found.tally().cuts > 5 and found.tally().reboots > 0)
        assert found.tally().packages == {module.package: 10}


@pytest.mark.parametrize(("password", "connected"), [("wrong", 0), ("right", 2)])
def test_whoever_is_not_let_in_tries_again(password: str, connected: int, tmp_path: Path) -> None:
    with controllers.site(tmp_path, users={"device": "right"}) as site:
        metadata = roster.Metadata(site.trust.repository)
        known = [Known(name="a"), Known(name="b")]
        broker = Broker("127.0.0.1", site.broker.port, False)
        access = Access(broker, None, "device", password, longest_wait_s=0.2)
        assert password not in repr(access)
        tries = 1 if connected else 3
        with Crowd(known, access, root=metadata.root, metadata=metadata) as found:
            eventually(lambda: all(one.sessions >= tries for one in found.wires.values()))
            eventually(lambda: found.tally().connected == connected)


def test_a_broker_that_is_not_there_hurts_nobody(site: Site) -> None:
    site.broker.kill()
    with crowd(site, 3) as found:
        eventually(lambda: all(one.sessions > 1 for one in found.wires.values()))
        assert found.tally().connected == 0
        site.broker.start()
        eventually(lambda: found.tally().connected == 3)


def test_what_goes_wrong_on_its_thread_is_told(site: Site) -> None:
    with crowd(site, 1) as found, pytest.raises(ZeroDivisionError):
        found.call(lambda: 1 / 0)


def test_files_that_may_not_be_open_are_told() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    raise_files(min(soft, 100))
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (soft, hard)
    with pytest.raises(UsageError, match="files have to be open"):
        raise_files(1 << 40)

"""What a fleet says of a deployment."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from edge.controller import rows
from edge.controller.entities import Plan
from edge.controller.records import Fleet
from edge.controller.rollouts import Outcome
from edge.protocol.messages import Module, ModuleState
from edge.target.logs import read as read_logs
from edge.target.status import observe
from serve.registry import Registry

PACKAGE, OTHER = "sha256:" + "a" * 64, "sha256:" + "b" * 64


class Revision(NamedTuple):
    number: int
    package: str
    settings: dict[str, str]


class Deployment(NamedTuple):
    name: str = "iris"
    desired: str = "running"
    active: int | None = 4
    package: str = PACKAGE

    @property
    def active_revision(self) -> Revision | None:
        return Revision(self.active, self.package, {}) if self.active else None


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    with Registry(str(tmp_path / "ws")) as registry:
        yield Fleet(registry.database)


def deploy(fleet: Fleet, *devices: str) -> None:
    for name in devices:
        fleet.add_device(name)
    plan = Plan(waves=("100%",))
    fleet.deploy("iris", {"main": Module(package=PACKAGE)}, condition="*", plan=plan)


def say(fleet: Fleet, name: str, found: Outcome, state: ModuleState, *, online: bool) -> None:
    """A device reports; the controller has judged it."""
    course = fleet.rollout("iris")
    with fleet.database.write() as connection:
        device = fleet.device(name)
        device.online, device.modules = online, {"main": state}
        rows.write_devices(connection, [device])
        course.advance(fleet.clock(), {name: True})
        course.report(name, found, fleet.clock())
        course.advance(fleet.clock(), {name: True})
        rows.write_members(connection, course.rollout, course.changed.values())
        rows.write_rollouts(connection, [course.rollout])


def good(package: str = PACKAGE) -> ModuleState:
    return ModuleState(phase="good", wanted=package, package=package, healthy=True)


def test_what_begins_is_starting_and_what_is_done_runs(fleet: Fleet) -> None:
    deploy(fleet, "cam")
    begun = observe(Deployment(), fleet, fleet.clock())
    assert (begun.state, begun.revision, begun.workers[0].state) == ("starting", 4, "waiting")
    assert "iris:1 is running: wave 0 of 1" in begun.note
    say(fleet, "cam", Outcome("good", "good"), good(), online=True)
    done = observe(Deployment(), fleet, fleet.clock() + 5)
    assert (done.state, done.note, done.workers[0].state) == ("running", "", "ready")
    assert 5 <= done.uptime_s < 30


def test_what_failed_is_said_with_its_reason(fleet: Fleet) -> None:
    deploy(fleet, "cam-1", "cam-2")
    say(fleet, "cam-1", Outcome("good", "good"), good(), online=True)
    bad = ModuleState(phase="reverted", wanted=PACKAGE, package=OTHER, healthy=True)
    say(fleet, "cam-2", Outcome("failed", "reverted", "main: it broke"), bad, online=True)
    found = observe(Deployment(), fleet, fleet.clock())
    assert found.state == "degraded"
    assert [(one.name, one.state) for one in found.workers] == [
        ("cam-2", "failed"), ("cam-1", "ready"),
    ]  # fmt: skip
    assert found.last_error is not None
    assert found.last_error["message"] == "cam-2: main: it broke"
    assert "halted" in found.note


def test_what_is_not_there_is_down_or_stopped(fleet: Fleet) -> None:
    assert observe(Deployment(), fleet, 0.0).state == "down"
    assert observe(Deployment(desired="stopped"), fleet, 0.0).state == "stopped"
    assert observe(Deployment(active=None), fleet, 0.0).state == "stopped"


def test_nobody_who_matches_and_somebody_elses_revision_are_told(fleet: Fleet) -> None:
    deploy(fleet)
    found = observe(Deployment(package=OTHER), fleet, fleet.clock())
    assert "No device matches now" in found.note
    assert "The fleet has iris:1, which this deployment did not make." in found.note


def test_logs_tell_what_happened(fleet: Fleet) -> None:
    deploy(fleet, "cam")
    fleet.deploy("iris-2", {"main": Module(package=OTHER)}, condition="*")
    fleet.pause("iris")
    lines = list(read_logs(fleet, "iris", "main", follow=False, tail=None))
    assert [line.split(" ", 2)[1] for line in lines] == ["iris:1", "iris:1"]
    assert "was begun" in lines[0]
    assert len(list(read_logs(fleet, "iris", "main", follow=False, tail=1))) == 1

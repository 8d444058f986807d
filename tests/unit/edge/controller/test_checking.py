"""What is refused before it is kept: nobody could read it again, or devices would refuse it."""

from __future__ import annotations

import math
from typing import Any

import pytest

from edge.agent import containers, samples
from edge.controller import checking
from edge.controller.checking import check, require_later
from edge.controller.entities import Device, Revision
from edge.controller.records import Fleet
from edge.protocol.messages import Module, ModuleState, Soak, Window
from scoring.errors import InvalidNameError, UsageError

DIGEST = "sha256:" + "a" * 64


def revision(**given: Any) -> Revision:
    module = {name: given.pop(name) for name in list(given) if name in Module.__struct_fields__}
    modules = {"main": Module(**{"package": DIGEST, **module})}
    return Revision(
        **{"deployment": "iris", "number": 1, "condition": "*", "modules": modules, **given}
    )


@pytest.mark.parametrize(
    "given",
    [
        {"port": 70_000},
        {"port": -5},
        {"timeout_s": 0.0},
        {"timeout_s": math.inf},
        {"timeout_s": 172_800.0},
        {"soak": Soak(seconds=8 * 86_400.0)},
        {"soak": Soak(most_latency_s=math.inf)},
        {"soak": Soak(most_errors=math.nan)},
        {"priority": 10**30},
        {"rate": -1},
        {"window": Window(begins=2000, ends=1)},
        {"settings": {"memroy": "512m"}},
        {"settings": {"env.": "1"}},
        {"settings": {"env.A=B": "1"}},
        {"settings": {"env.A": "\0"}},
        {"condition": "area"},
        {"modules": {}},
        {"modules": {name: Module(package=DIGEST, port=8080) for name in "ab"}},
    ],
)
def test_what_cannot_be_read_again_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        check(revision(**given))


def test_what_devices_know_is_taken() -> None:
    settings = {"env.A-b": "1", "server.max_body_bytes": "1", **dict.fromkeys(checking.PLAIN, "1")}
    check(revision(settings=settings, port=65_535, priority=-5, window=Window(begins=0, ends=0)))
    check(revision(modules={name: Module(package=DIGEST) for name in "ab"}))
    with pytest.raises(InvalidNameError):
        check(revision(modules={"A!": Module(package=DIGEST)}))


def test_settings_without_a_prefix_are_those_that_devices_read() -> None:
    assert {*containers._SETTINGS, samples.SETTING} == checking.PLAIN


def test_a_fleet_goes_on_after_a_revision_that_was_refused(fleet: Fleet) -> None:
    fleet.add_device("cam")
    modules = {"main": Module(package=DIGEST, port=70_000)}
    for act in (fleet.plan_deployment, fleet.deploy):
        with pytest.raises(UsageError, match="main"):
            act("iris", modules, condition="*")
    assert fleet.deployments() == []
    fleet.deploy("iris", {"main": Module(package=DIGEST)}, condition="*")


def test_devices_go_to_no_lower_release() -> None:
    states = {"main": ModuleState(phase="good", release=3), "x": ModuleState(phase="good")}
    devices = [Device(name="new", site="s"), Device(name="cam", site="s", modules=states)]
    require_later(devices, {"main": Module(package=DIGEST, release=3)})
    require_later(devices, {"other": Module(package=DIGEST, release=1)})
    with pytest.raises(UsageError, match="cam runs release 3") as caught:
        require_later(devices, {"main": Module(package=DIGEST, release=2)})
    assert DIGEST in caught.value.hint


def test_a_layer_does_not_take_the_port_of_what_it_is_added_to(fleet: Fleet) -> None:
    fleet.add_device("cam", tags={"area": "yard"})
    fleet.add_device("other")
    fleet.deploy("iris", {"main": Module(package=DIGEST, port=8080)}, condition="*")
    with fleet.database.write() as connection:
        connection.execute("UPDATE fleet_deployments SET stable = 1")
    extra = {"extra": Module(package=DIGEST, port=8080)}
    with pytest.raises(UsageError, match="On cam the modules extra and main"):
        fleet.deploy("lay", extra, condition="tags.area", layer=True)
    fleet.deploy("lay", {"extra": Module(package=DIGEST, port=8081)}, condition="*", layer=True)
    fleet.deploy("iris", {"main": Module(package=DIGEST, port=8080)}, condition="*")

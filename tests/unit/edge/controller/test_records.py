"""The records: what people do to a fleet, on SQLite and on PostgreSQL."""

from __future__ import annotations

import threading

import pytest

from edge.controller import rows, tables
from edge.controller.entities import Device, Plan
from edge.controller.ledger import Changes, Lease, LeaseLostError, Ledger
from edge.controller.records import Fleet
from edge.protocol.messages import Module, Window
from scoring.errors import (
    AlreadyExistsError,
    InUseError,
    InvalidNameError,
    NotFoundError,
    UsageError,
    WorkspaceError,
)
from serve.registry import Registry

MAIN = {"main": Module(package="sha256:" + "a" * 64, settings={"env.X": "%s :name 'x'"})}


def empty(**given: object) -> Changes:
    names = ("devices", "courses", "deployments", "told", "commands", "events")
    return Changes(**({name: [] for name in names} | given))  # type: ignore[arg-type]


def test_devices_come_are_tagged_and_go(fleet: Fleet) -> None:
    made = fleet.add_device("cam-1", "berlin", {"area": "yard", "note": "100% 'sure' :x"})
    assert fleet.device("cam-1") == made
    with pytest.raises(AlreadyExistsError):
        fleet.add_device("cam-1", "paris")
    for name in ("Cam", "a/b", "+", ""):
        with pytest.raises(InvalidNameError):
            fleet.add_device(name)
    fleet.add_device("cam-2")
    assert [one.name for one in fleet.devices("tags.area = 'yard'")] == ["cam-1"]
    fleet.tag_device("cam-2", {"area": "yard"}, ["none"])
    fleet.tag_device("cam-1", {}, ["area"])
    assert [one.name for one in fleet.devices("tags.area")] == ["cam-2"]
    with pytest.raises(UsageError):
        fleet.tag_device("cam-1", {"": "x"})
    assert fleet.remove_device("cam-1").name == "cam-1"
    for act in (fleet.device, fleet.remove_device):
        with pytest.raises(NotFoundError):
            act("cam-1")


def test_an_enrolled_device_is_known_and_counts_anew(fleet: Fleet) -> None:
    fleet.enrolled("cam", "hall")
    with fleet.database.write() as connection:
        device = fleet.device("cam")
        device.boot, device.generation, device.tags = 7, 3, {"a": "b"}
        rows.write_devices(connection, [device])
    again = fleet.enrolled("cam", "yard")
    assert (again.boot, again.generation, again.site, again.tags) == (0, 3, "yard", {"a": "b"})


def test_a_deployment_is_planned_then_made(fleet: Fleet) -> None:
    for number in range(10):
        fleet.add_device(f"d{number}", tags={"odd": str(number % 2)})
    before = fleet.changes()
    planned = fleet.plan_deployment("iris", MAIN, condition="tags.odd = 1")
    assert (fleet.changes(), fleet.rollouts(), fleet.deployments()) == (before, [], [])
    window = Window(begins=60, ends=120, days=(5, 6))
    made = fleet.deploy("iris", MAIN, condition="tags.odd = 1", window=window, priority=3)
    assert [m.device for m in made.members] == [m.device for m in planned.members]
    assert fleet.changes() > before
    ((deployment, revision),) = fleet.deployments()
    assert (deployment.stable, deployment.newest, revision) == (0, 1, made.revision)
    assert fleet.rollout("iris").counts() == {"pending": 5}
    assert fleet.revision("iris", 1).window == window
    with pytest.raises(NotFoundError):
        fleet.revision("iris", 2)
    with pytest.raises(InUseError, match="is running"):
        fleet.remove_deployment("iris")
    fleet.abort("iris")
    fleet.remove_deployment("iris")
    assert fleet.deployments() == []


@pytest.mark.parametrize(
    "wrong",
    [
        *(
            {"name": "Iris"},
            {"condition": "area"},
            {"modules": {}},
            {"modules": {"A": MAIN["main"]}},
        ),
        *({"plan": Plan(waves=("x",))}, {"plan": Plan(timeout_s=1.0)}, {"rate": -1}),
    ],
)
def test_what_cannot_be_deployed_changes_nothing(fleet: Fleet, wrong: dict[str, object]) -> None:
    given = {"name": "iris", "modules": MAIN, "condition": "*"} | wrong
    with pytest.raises(UsageError):
        fleet.deploy(**given)  # type: ignore[arg-type]
    assert fleet.rollouts() == []


def test_a_newer_rollout_supersedes_the_older(fleet: Fleet) -> None:
    fleet.add_device("d")
    fleet.deploy("iris", MAIN, condition="*")
    fleet.deploy("iris", MAIN, condition="*")
    assert [(one.id, one.state) for one in fleet.rollouts()] == [
        ("iris:2", "running"),
        ("iris:1", "superseded"),
    ]
    assert fleet.rollout("iris").rollout.id == "iris:2"
    with pytest.raises(UsageError, match="superseded"):
        fleet.pause("iris:1")


def test_a_rollout_is_not_retried_behind_the_revision_that_is_for_all(fleet: Fleet) -> None:
    fleet.add_device("d")
    for _ in "12":
        fleet.deploy("iris", MAIN, condition="*")
    with fleet.database.write() as connection:
        connection.execute("UPDATE fleet_rollouts SET state = 'complete'")
        connection.execute("UPDATE fleet_members SET state = 'failed'")
        connection.execute("UPDATE fleet_deployments SET stable = 2")
    with pytest.raises(UsageError, match="revision 2 is for all"):
        fleet.retry("iris:1")
    assert fleet.retry("iris:2") == ["d"]
    before = fleet.changes(), fleet.events()
    assert fleet.retry("iris:2") == []
    assert (fleet.changes(), fleet.events()) == before


def test_a_dry_run_says_what_would_be_and_refuses_what_would_be(fleet: Fleet) -> None:
    fleet.add_device("d")
    fleet.deploy("iris", MAIN, condition="*")
    with fleet.database.write() as connection:
        connection.execute("UPDATE fleet_members SET state = 'failed'")
    before = fleet.changes(), fleet.events()
    assert fleet.retry("iris", dry_run=True) == ["d"]
    assert fleet.abort("iris", dry_run=True) == ["d"]
    assert fleet.pause("iris", dry_run=True).state == "running"
    with pytest.raises(UsageError):
        fleet.resume("iris", dry_run=True)
    with pytest.raises(InUseError, match="is running"):
        fleet.remove_deployment("iris", dry_run=True)
    assert (fleet.changes(), fleet.events()) == before
    fleet.abort("iris")
    fleet.remove_deployment("iris", dry_run=True)
    assert len(fleet.deployments()) == 1


def test_devices_that_others_keep_are_no_targets(fleet: Fleet) -> None:
    fleet.add_device("a")
    fleet.add_device("b")
    fleet.deploy("high", MAIN, condition="device = 'a'", priority=9)
    with fleet.database.write() as connection:
        connection.execute("UPDATE fleet_deployments SET stable = 1")
    low = fleet.plan_deployment("low", MAIN, condition="*", priority=1)
    assert [m.device for m in low.members] == ["b"]
    layer = fleet.plan_deployment(
        "extra", {"log": MAIN["main"]}, condition="*", layer=True, priority=1
    )
    assert sorted(m.device for m in layer.members) == ["a", "b"]


def test_commands_are_asked_for_and_forgotten(fleet: Fleet) -> None:
    fleet.add_device("d")
    asked = fleet.request("d", "logs", {"tail": 3}, timeout_s=5)
    assert fleet.command(asked.id) == asked
    with pytest.raises(NotFoundError):
        fleet.request("e", "logs")
    with pytest.raises(NotFoundError):
        fleet.command("none")


def test_events_are_told_in_order_and_the_oldest_go(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "MOST_EVENTS", 5)
    with fleet.database.write() as connection:
        for number in range(8):
            rows.write_event(connection, float(number), "device", "d", f"{number}")
    assert [one.text for one in fleet.events()] == ["3", "4", "5", "6", "7"]
    assert [one.text for one in fleet.events(most=2)] == ["6", "7"]
    assert [one.text for one in fleet.events(after=7)] == ["7"]


def test_tables_of_a_newer_release_are_left_alone(fleet: Fleet) -> None:
    with pytest.raises(WorkspaceError, match="newer"):
        tables.prepare(fleet.database, current=0, migrations={})
    more = {2: ("CREATE TABLE fleet_more (x BIGINT)",)}
    tables.prepare(fleet.database, current=2, migrations=tables.MIGRATIONS | more)  # type: ignore[operator]
    with pytest.raises(WorkspaceError, match="newer"):
        Fleet(fleet.database)


def test_damaged_records_are_named(fleet: Fleet) -> None:
    fleet.add_device("d")
    with fleet.database.write() as connection:
        connection.execute("UPDATE fleet_devices SET tags = '{'")
    with pytest.raises(WorkspaceError, match="damaged"):
        fleet.devices()


def test_one_of_several_leads_and_another_takes_over(fleet: Fleet) -> None:
    clock = [0.0]
    one = Lease(fleet.database, "one", lasts_s=10, ticks=lambda: clock[0])
    two = Lease(fleet.database, "two", lasts_s=10, ticks=lambda: clock[0])
    assert one.keep(5.0)
    assert not two.keep()
    clock[0] = 9.0
    assert one.keep(6.0)
    clock[0] = 11.0
    assert not two.keep()  # it has seen a new beat
    clock[0] = 22.0
    assert two.keep()
    assert (one.term, two.term) == (1, 2)
    assert not one.keep()
    assert one.term == 0
    two.let_go()
    assert one.keep()
    assert one.term == 3


def test_who_leads_no_more_writes_nothing(fleet: Fleet) -> None:
    fleet.add_device("d")
    clock = [0.0]
    old = Lease(fleet.database, "old", lasts_s=1, ticks=lambda: clock[0])
    new = Lease(fleet.database, "new", lasts_s=1, ticks=lambda: clock[0])
    assert old.keep()
    ledger = Ledger(fleet.database, old)
    picture = ledger.load()
    assert not new.keep()
    clock[0] = 2.0
    assert new.keep()
    device = picture.image.devices["d"]
    device.generation = 99
    with pytest.raises(LeaseLostError):
        ledger.write(empty(devices=[device]), picture.changes)
    assert fleet.device("d").generation == 0


def test_what_people_change_meanwhile_is_seen_first(fleet: Fleet) -> None:
    fleet.add_device("d")
    lease = Lease(fleet.database, "one")
    assert lease.keep()
    ledger = Ledger(fleet.database, lease)
    picture = ledger.load()
    fleet.tag_device("d", {"a": "b"})
    device = picture.image.devices["d"]
    device.generation = 1
    assert not ledger.write(empty(devices=[device]), picture.changes)
    assert fleet.device("d").tags == {"a": "b"}
    picture = ledger.load()
    device = picture.image.devices["d"]
    device.generation = 1
    assert ledger.write(empty(devices=[device]), picture.changes)
    assert (fleet.device("d").generation, fleet.device("d").tags) == (1, {"a": "b"})


def test_many_may_change_a_fleet_at_once(fleet: Fleet, registry: Registry) -> None:
    def add(number: int) -> None:
        Fleet(registry.database).add_device(f"d{number}")

    threads = [threading.Thread(target=add, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(fleet.devices()) == 8
    assert isinstance(fleet.device("d3"), Device)

"""Simulated devices in the records of a fleet."""

from __future__ import annotations

import ssl
import time
from pathlib import Path

import pytest

from edge.controller import rows
from edge.controller.records import Fleet
from edge.security.authority import Authority
from edge.simulator import roster
from scoring.errors import NotFoundError, PayloadTooLargeError, UsageError
from serve.registry import location
from serve.registry.database import Database
from tests.support.fleettrust import Fleet as Keys


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    (tmp_path / "workspace").mkdir()
    return Fleet(Database(location.resolve(str(tmp_path / "workspace"))))


def test_names_sort_as_they_count() -> None:
    assert roster.names("sim", 3) == ["sim-0001", "sim-0002", "sim-0003"]
    many = roster.names("x", 12_000)
    assert many == sorted(many)
    assert many[-1] == "x-12000"


def test_new_devices_are_known_and_tagged(fleet: Fleet) -> None:
    before = fleet.changes()
    known = roster.enlist(fleet, ["b", "a"], "hall", {"line": "1"})
    assert [(one.name, one.site, one.boot) for one in known] == [("b", "hall", 0), ("a", "hall", 0)]
    assert {one.name: one.tags for one in fleet.devices()} == {
        "a": {"line": "1"},
        "b": {"line": "1"},
    }
    assert fleet.changes() == before + 1  # the controller looks anew once


def test_known_ones_go_on_where_they_were(fleet: Fleet) -> None:
    roster.enlist(fleet, ["a"], "hall", {"line": "1"})
    with fleet.database.write() as connection:
        device = fleet.device("a")
        device.boot, device.seen_at, device.facts = 7, time.time(), {"simulated": True}
        rows.write_devices(connection, [device])
    known = roster.enlist(fleet, ["a", "b"], "yard", {"line": "2"})
    assert [(one.name, one.site, one.boot) for one in known] == [("a", "hall", 7), ("b", "yard", 0)]
    assert fleet.device("a").tags == {"line": "1"}


def test_a_real_device_is_never_taken_for_a_simulated_one(fleet: Fleet) -> None:
    fleet.add_device("a")
    with fleet.database.write() as connection:
        device = fleet.device("a")
        device.seen_at = time.time()
        rows.write_devices(connection, [device])
    with pytest.raises(UsageError, match="a is a real device"):
        roster.enlist(fleet, ["a", "b"], "default")
    assert [one.name for one in fleet.devices()] == ["a"]


def test_metadata_is_read_once_but_for_the_timestamp(tmp_path: Path) -> None:
    keys = Keys(tmp_path)
    metadata = roster.Metadata(keys.repository)
    assert metadata.root == keys.repository.root(1)
    first = metadata("timestamp.json", 100_000)
    assert metadata("1.targets.json", 100_000) is not None
    assert metadata("2.targets.json", 100_000) is None
    keys.permit("one")
    assert metadata("timestamp.json", 100_000) != first
    assert metadata("2.targets.json", 100_000) is not None
    with pytest.raises(PayloadTooLargeError):
        metadata("1.targets.json", 10)


def test_a_fleet_without_keys_is_told_so(tmp_path: Path) -> None:
    from edge.security.metadatastore import FolderStore
    from edge.security.repository import Repository

    with pytest.raises(NotFoundError, match="no signed metadata"):
        _ = roster.Metadata(Repository(FolderStore(tmp_path))).root


def test_each_device_shows_its_own_certificate() -> None:
    made = roster.Certificates(Authority.create(time.time()), "hall")
    context = made("camera-1")
    assert context.verify_mode == ssl.CERT_REQUIRED
    assert made("camera-1") is not context  # but of the same certificate
    assert len(made._made) == 1
    made("camera-2")
    assert set(made._made) == {"camera-1", "camera-2"}

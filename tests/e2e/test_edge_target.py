"""The target `edge`, from the command line to a real device and back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.whole_fleet import Built, WholeFleet, score, until

pytest.importorskip("duckdb")

ROWS = [[-1.0, 2.0, -3.0, 4.0]]


@pytest.fixture
def built(tmp_path: Path) -> Built:
    (tmp_path / "packages").mkdir()
    return Built.make(tmp_path / "packages")


@pytest.fixture
def fleet(built: Built, tmp_path: Path) -> Iterator[WholeFleet]:
    with WholeFleet(tmp_path, built.workspace).open() as made:
        yield made


def test_a_deployment_goes_to_the_devices_that_match_and_back(
    fleet: WholeFleet, built: Built
) -> None:
    fleet.sign(built.good)
    for name, site in (("cam", "north"), ("other", "south")):
        fleet.join(name, site)
        fleet("device", "tag", name, f"site={site}")
    settings = ("--set", "where=tag.site=='north'", "--set", "soak=1s", "--set", "wait=true")
    deployed = ("deploy", "iris", "--package", built.good, "--target", "edge", *settings)
    plan = fleet(*deployed, "--dry-run")
    assert (plan["target"], plan["revision"]) == ("edge", 1)
    view = fleet(*deployed)
    assert (view["state"], view["revision"], view["url"]) == ("running", 1, "")
    assert [(one["name"], one["state"]) for one in view["workers"]] == [("cam", "ready")]
    assert score(fleet.port("cam"), ROWS, 3) == [200] * 3
    assert fleet("device", "show", "other")["modules"] == {}

    # What nobody has signed goes nowhere, and what runs goes on.
    refused = ("deploy", "iris", "--package", built.bad, "--target", "edge", *settings)
    fleet(*refused, fails=True)
    shown = fleet("deployment", "show", "iris")
    assert [one["state"] for one in shown["revisions"]] == ["active", "failed"]
    assert "No signed metadata permits" in shown["revisions"][-1]["reason"]
    fleet.sign(built.bad)
    assert fleet(*refused)["revision"] == 3
    statuses = score(fleet.port("cam"), ROWS, 9)
    assert statuses.count(500) == 3

    # Devices go to no lower release: the earlier package is signed as the next one first.
    fleet("deployment", "rollback", "iris", fails=True)
    fleet.sign(built.good)
    back = fleet("deployment", "rollback", "iris")
    assert (back["state"], back["package"]) == ("running", built.good)
    assert score(fleet.port("cam"), ROWS, 9) == [200] * 9

    (fleet.folder / "log").write_text(fleet.text("deployment", "logs", "iris"))
    assert "The rollout was begun" in (fleet.folder / "log").read_text()
    fleet("deployment", "stop", "iris")
    assert fleet("deployment", "show", "iris")["state"] == "stopped"
    until(lambda: _phase(fleet) in {"", "stopped"}, "the device has stopped it")
    assert fleet("deployment", "start", "iris")["state"] in {"starting", "running"}
    until(lambda: fleet("deployment", "show", "iris")["state"] == "running", "it runs again")


def _phase(fleet: WholeFleet) -> str:
    modules = fleet("device", "show", "cam")["modules"]
    return str(modules["main"]["phase"]) if modules else ""

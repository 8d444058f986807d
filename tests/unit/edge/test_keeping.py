"""Packages that a fleet runs are not deleted under it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.controller.records import Fleet
from edge.protocol.messages import Module
from scoring.errors import InUseError, NotFoundError
from serve.workspace import Workspace
from tests.support.small_packages import small_package


@pytest.fixture(params=["sqlite", "postgresql"])
def workspace(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Workspace]:
    place = str(tmp_path / "workspace")
    if request.param == "postgresql":
        place = request.getfixturevalue("postgresql").url(tmp_path / "blobs")
    with Workspace(place) as opened:
        yield opened


def test_a_workspace_without_a_fleet_deletes_as_before(
    workspace: Workspace, tmp_path: Path
) -> None:
    made = small_package(workspace, tmp_path)
    workspace.registry.packages.delete(made.digest)
    with pytest.raises(NotFoundError):
        workspace.registry.packages.get(made.digest)


def test_what_a_fleet_runs_stays(workspace: Workspace, tmp_path: Path) -> None:
    old = small_package(workspace, tmp_path, content=b"one")
    new = small_package(workspace, tmp_path, content=b"two")
    registry = workspace.registry
    fleet = Fleet(registry.database)
    for made in (old, new):
        fleet.deploy("iris", {"main": Module(package=made.digest)}, condition="*")
    for made in (old, new):
        with pytest.raises(InUseError, match="the fleet's deployment iris") as caught:
            registry.packages.delete(made.digest)
        assert "fieldpost fleet remove iris" in caught.value.hint
    with pytest.raises(InUseError, match="iris:2 is used by the fleet's deployment iris"):
        registry.models.delete("iris:2")
    assert registry.gc().packages == ()

    fleet.abort("iris")
    fleet.remove_deployment("iris")
    assert registry.models.delete("iris:2").packages == (new.digest,)
    registry.packages.delete(old.digest)


def test_a_model_whose_package_is_of_an_earlier_revision_goes_and_the_package_stays(
    workspace: Workspace, tmp_path: Path
) -> None:
    old = small_package(workspace, tmp_path, content=b"one")
    new = small_package(workspace, tmp_path, content=b"two")
    registry = workspace.registry
    fleet = Fleet(registry.database)
    for made in (old, new):
        fleet.deploy("iris", {"main": Module(package=made.digest)}, condition="*")
    with registry.database.write() as connection:
        connection.execute("UPDATE fleet_deployments SET stable = 2")
    assert registry.models.delete("iris:1").packages == ()
    assert registry.gc().packages == ()
    assert registry.packages.get(old.digest).digest == old.digest

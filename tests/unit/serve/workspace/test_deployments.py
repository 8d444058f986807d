from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from scoring.errors import InvalidNameError
from serve.workspace import Workspace

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# Package and settings of each revision, in turn; all have answered, the last one does.
Kind = tuple[str, dict[str, str]]
A: Kind = ("a", {})
B: Kind = ("b", {})
B2: Kind = ("b", {"workers": "2"})
C: Kind = ("c", {})


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    with Workspace(tmp_path / "workspace") as opened:
        yield opened


def _deploy(
    workspace: Workspace, package: str, settings: dict[str, str], origin: int | None = None
) -> None:
    registry = workspace.registry
    built = registry.packages.register(
        package.encode(), [], model=None, model_version=None, environment=None, platform="any"
    )
    revision = registry.deployments.create_revision(
        "web",
        target="local",
        package=built.digest,
        settings=settings,
        by="ann",
        rollback_of=origin,
    )
    registry.deployments.activate("web", revision.number)


@pytest.mark.parametrize(
    ("revisions", "goals"),
    [
        ([A, B], [1]),
        ([A, B, C], [2, 1]),
        ([A, B, B2], [2, 1]),  # settings are rolled back as packages are
        ([A, B, B], [1]),  # going back to the same would change nothing
        ([A, A], [1]),
    ],
)
def test_a_rollback_goes_to_the_last_that_answered_otherwise(
    workspace: Workspace, revisions: list[Kind], goals: list[int]
) -> None:
    for package, settings in revisions:
        _deploy(workspace, package, settings)
    for goal in goals:
        found = workspace.deployments.rollback_goal("web")
        assert found.number == goal
        _deploy(workspace, *revisions[goal - 1], origin=goal)


def test_a_wrong_name_is_called_that_of_a_deployment(workspace: Workspace) -> None:
    with pytest.raises(InvalidNameError, match="deployment name"):
        workspace.deploy("Not a name", "sha256:" + "0" * 64)

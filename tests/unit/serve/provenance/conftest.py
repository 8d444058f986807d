"""A signed package, small enough to be made for every test."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from serve import Workspace
from serve.provenance.keys import PrivateKey
from tests.support.small_packages import small_package

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from serve.registry.records import Package


@dataclass(frozen=True)
class Made:
    """A workspace with a package."""

    workspace: Workspace
    package: Package


@pytest.fixture(scope="session")
def key() -> PrivateKey:
    return PrivateKey.generate()


@pytest.fixture(scope="session")
def other_key() -> PrivateKey:
    return PrivateKey.generate()


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Made]:
    with Workspace(tmp_path / "workspace") as workspace:
        yield Made(workspace, small_package(workspace, tmp_path))


@pytest.fixture
def signed(made: Made, key: PrivateKey) -> Made:
    made.workspace.packages.sign(made.package, key)
    return made

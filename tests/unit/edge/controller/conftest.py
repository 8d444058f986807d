"""The fleet's records on both databases."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.controller.records import Fleet
from serve.registry import Registry


@pytest.fixture(params=["sqlite", "postgresql"])
def registry(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Registry]:
    place = str(tmp_path / "workspace")
    if request.param == "postgresql":
        place = request.getfixturevalue("postgresql").url(tmp_path / "blobs")
    with Registry(place) as opened:
        yield opened


@pytest.fixture
def fleet(registry: Registry) -> Fleet:
    return Fleet(registry.database)

"""A package on a small base."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from serve.packaging.images.bases import open_local
from serve.packaging.images.basestore import BaseStore
from tests.support.smallbases import archive, system

if TYPE_CHECKING:
    from pathlib import Path

    from serve.packaging.images.bases import Base


@pytest.fixture
def store(tmp_path: Path) -> BaseStore:
    return BaseStore(tmp_path / "bases")


@pytest.fixture
def rootfs(tmp_path: Path) -> Path:
    path = tmp_path / "base.tar"
    path.write_bytes(archive(system()))
    return path


@pytest.fixture
def base(store: BaseStore, rootfs: Path) -> Base:
    return open_local(f"rootfs:{rootfs}", "linux/amd64", store)

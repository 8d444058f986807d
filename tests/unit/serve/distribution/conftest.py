"""Registries for tests, and logins that are nobody's."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from serve.distribution.credentials import Logins
from serve.distribution.hosts import Hosts
from serve.distribution.limits import Limits
from serve.distribution.memory import Memory
from serve.distribution.options import Options
from tests.support.registry import DockerRegistry, is_installed, running
from tests.support.tiny_registry import TinyRegistry

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

QUICK = Limits(
    connect_s=2, read_s=2, attempts=3, patience_s=3, first_patience_s=0.5, chunk_bytes=1 << 20
)


@pytest.fixture
def tiny() -> Iterator[TinyRegistry]:
    with TinyRegistry() as registry:
        yield registry


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerRegistry]:
    """Debian's registry, shared: each test has repositories of its own."""
    if not is_installed():
        pytest.skip("docker-registry is not installed")
    with running(tmp_path_factory.mktemp("registry")) as found:
        yield found


@pytest.fixture
def options(tmp_path: Path) -> Options:
    """Short limits, no logins but those in `home`, a memory of its own."""
    environ = {"HOME": str(tmp_path / "home")}
    return Options(
        hosts=Hosts(environ, root=tmp_path / "root"),
        logins=Logins(environ),
        limits=QUICK,
        memory=Memory(tmp_path / "memory"),
    )

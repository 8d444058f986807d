"""Fixtures that several kinds of tests share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests import postgres

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[postgres.PostgreSQL]:
    """A real PostgreSQL server; tests that need it are skipped where it is not installed."""
    binaries = postgres.find_binaries()
    if binaries is None:
        pytest.skip("PostgreSQL's server (initdb, postgres) is not installed")
    with postgres.running(binaries) as server:
        yield server


@pytest.fixture
def postgresql(postgresql_server: postgres.PostgreSQL) -> postgres.PostgreSQL:
    """The server with an empty database."""
    postgresql_server.clear()
    return postgresql_server

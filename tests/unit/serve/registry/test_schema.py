from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

import pytest

from scoring.errors import WorkspaceError
from serve.registry import Registry, schema, tables
from serve.registry.database import Database
from serve.registry.location import resolve

if TYPE_CHECKING:
    from pathlib import Path

    from serve.registry.connection import Connection
    from tests.postgres import PostgreSQL

NOW = tables.SCHEMA_VERSION


def add_column(connection: Connection) -> None:
    connection.execute("ALTER TABLE fieldpost_packages ADD COLUMN note TEXT")


def test_an_older_database_is_brought_forward_step_by_step(place: str) -> None:
    with Registry(place) as registry:
        registry.blobs.put_bytes(b"kept")
    steps: list[int] = []

    def second(connection: Connection) -> None:
        steps.append(2)
        add_column(connection)

    def third(connection: Connection) -> None:
        steps.append(3)
        connection.execute("UPDATE fieldpost_packages SET note = 'x'")

    location = resolve(place)
    for _ in range(2):
        with Database(location) as database:
            migrations = {NOW + 1: second, NOW + 2: third}
            schema.prepare(database, location.blobs, current=NOW + 2, migrations=migrations)
    assert steps == [2, 3]
    with pytest.raises(
        WorkspaceError, match=rf"newer Fieldpost.*version {NOW + 2}.*knows {NOW}"
    ) as caught:
        Registry(place)
    assert "Upgrade" in caught.value.hint


def test_a_step_that_fails_leaves_the_old_version(place: str) -> None:
    Registry(place).close()
    location = resolve(place)

    def fail(connection: Connection) -> None:
        add_column(connection)
        raise KeyError("in the middle")

    with Database(location) as database, pytest.raises(KeyError):
        schema.prepare(database, location.blobs, current=NOW + 1, migrations={NOW + 1: fail})
    with Registry(place) as registry:
        assert registry.packages.list() == ()
    with (
        Database(location) as database,
        pytest.raises(WorkspaceError, match="note"),
        database.read() as connection,
    ):
        connection.execute("SELECT note FROM fieldpost_packages")


def test_a_database_of_something_else_is_left_alone(tmp_path: Path) -> None:
    tmp_path.joinpath("ws").mkdir()
    with sqlite3.connect(tmp_path / "ws" / "fieldpost.db") as other:
        other.execute("CREATE TABLE precious (x)")
    other.close()
    with pytest.raises(WorkspaceError, match="something else"):
        Registry(tmp_path / "ws")


def test_a_lost_database_begins_anew_beside_its_blobs(tmp_path: Path) -> None:
    with Registry(tmp_path) as registry:
        blob = registry.blobs.put_bytes(b"x")
    (tmp_path / "fieldpost.db").unlink()
    with Registry(tmp_path) as registry:
        assert registry.blobs.has(blob.digest)


def test_a_lost_mark_is_made_again(place: str) -> None:
    Registry(place).close()
    mark = resolve(place).blobs / "workspace.json"
    mark.unlink()
    Registry(place).close()
    assert mark.exists()
    mark.write_bytes(b"{")
    with pytest.raises(WorkspaceError, match="damaged") as caught:
        Registry(place)
    assert "Delete this file" in caught.value.hint


def test_two_databases_never_share_a_blob_folder(tmp_path: Path, postgresql: PostgreSQL) -> None:
    with Registry(tmp_path / "blobs"):
        pass
    with pytest.raises(WorkspaceError, match="another workspace") as caught:
        Registry(postgresql.url(tmp_path / "blobs"))
    assert "workspace.json" in caught.value.hint


def test_ours_live_beside_other_tables_in_postgresql(
    tmp_path: Path, postgresql: PostgreSQL
) -> None:
    postgresql.execute("CREATE TABLE precious (x integer)", "CREATE TABLE models (y integer)")
    with Registry(postgresql.url(tmp_path / "blobs")) as registry:
        assert registry.models.list() == ()

"""Making the tables, bringing older ones forward, and tying a database to its blobs."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import msgspec

from scoring import durable
from scoring.errors import WorkspaceError
from serve.registry import tables
from serve.registry.connection import Connection
from serve.registry.statements import insert

if TYPE_CHECKING:
    from pathlib import Path

    from serve.registry.database import Database

MARK_FILE = "workspace.json"

_LOOK = "SELECT id, schema_version FROM fieldpost_workspace"
_SET_VERSION = "UPDATE fieldpost_workspace SET schema_version = :current"

Migration = Callable[[Connection], None]


def _add_attachments(connection: Connection) -> None:
    for statement in tables.ATTACHMENTS:
        connection.execute(statement)


def _add_endpoints(connection: Connection) -> None:
    for statement in tables.ENDPOINTS:
        connection.execute(statement)


MIGRATIONS: Mapping[int, Migration] = {2: _add_attachments, 3: _add_endpoints}
"""What brings the tables from the version before to this one."""


def prepare(
    database: Database,
    root: Path,
    *,
    current: int = tables.SCHEMA_VERSION,
    migrations: Mapping[int, Migration] = MIGRATIONS,
) -> None:
    """Makes the tables or brings them forward; all at once or not at all.

    Args:
        database: A database, empty or not.
        root: The folder of the blob store, which is marked as this database's.
        current: The version that this release knows.
        migrations: The steps to it.

    Raises:
        WorkspaceError: The database is of a newer version, or is something else; or the blobs are
            another database's.
    """
    identity, version = _look(database)
    if version != current:
        identity = _upgrade(database, _marked(root), current, migrations)
    _claim(root, identity, database)


def _look(database: Database) -> tuple[str, int]:
    """The workspace's identity and version; version 0 for a database without our tables."""
    with database.read() as connection:
        return _look_on(database, connection)


def _look_on(database: Database, connection: Connection) -> tuple[str, int]:
    if tables.WORKSPACE not in database.tables(connection):
        return "", 0
    rows = connection.execute(_LOOK)
    return (rows[0]["id"], rows[0]["schema_version"]) if rows else ("", 0)


def _upgrade(
    database: Database, marked: str | None, current: int, migrations: Mapping[int, Migration]
) -> str:
    with database.write() as connection:
        identity, version = _look_on(
            database, connection
        )  # another process may have been here first
        if version > current:
            raise WorkspaceError(
                f"The registry {database.location} was written by a newer Fieldpost: "
                f"it has version {version}, this one knows {current}.",
                hint="Upgrade Fieldpost on this machine.",
            )
        if version == 0:
            return _create(connection, database, marked, current)
        for step in range(version + 1, current + 1):
            migrations[step](connection)
        connection.execute(_SET_VERSION, current=current)
        return identity


def _create(connection: Connection, database: Database, marked: str | None, current: int) -> str:
    if database.is_sqlite and database.tables(connection):
        raise WorkspaceError(
            f"{database.location.database_file} is a database of something else.",
            hint="Choose another workspace with FIELDPOST_WORKSPACE, or move the file away.",
        )
    # A SQLite file that was lost and begins anew is still the one of the blobs beside it.
    identity = marked if database.is_sqlite and marked else uuid.uuid4().hex
    for statement in tables.STATEMENTS:
        connection.execute(statement)
    columns = {"id": identity, "schema_version": current}
    connection.execute(insert(tables.WORKSPACE, columns), **columns)
    return identity


class _Mark(msgspec.Struct, frozen=True):
    workspace: str


def _marked(root: Path) -> str | None:
    """The identity of the workspace that the blobs belong to; None for none yet."""
    path = root / MARK_FILE
    try:
        return msgspec.json.decode(path.read_bytes(), type=_Mark).workspace
    except FileNotFoundError:
        return None
    except OSError as error:
        raise durable.translate(error, str(path)) from error
    except msgspec.DecodeError as error:
        raise WorkspaceError(
            f"{path} is damaged: {error}.", hint="Delete this file; it is made anew."
        ) from error


def _claim(root: Path, identity: str, database: Database) -> None:
    """Marks the blob folder: two databases on one folder would sweep each other's."""
    found = _marked(root)
    if found == identity:
        return
    if found is not None:
        raise WorkspaceError(
            f"The blob folder {root} belongs to another workspace than {database.location}.",
            hint="Give each workspace a blob folder of its own. If the other database is gone for "
            f"good, delete {root / MARK_FILE}.",
        )
    durable.write_bytes(root / MARK_FILE, msgspec.json.encode(_Mark(identity)) + b"\n")

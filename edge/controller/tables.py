"""The tables of devices, deployments, rollouts and commands, in the workspace's database.

JSON is kept as text, truth as 0 and 1: SQLite and PostgreSQL take both alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from edge.workspace import Connection, Database
from scoring.errors import WorkspaceError

VERSION: Final = 1

_SCHEMA: Final = """CREATE TABLE IF NOT EXISTS fleet_schema (
    name VARCHAR(32) PRIMARY KEY,
    version BIGINT NOT NULL
)"""
_FIRST: Final = (
    """CREATE TABLE IF NOT EXISTS fleet_devices (
        name VARCHAR(63) PRIMARY KEY,
        site VARCHAR(63) NOT NULL,
        created_at DOUBLE PRECISION NOT NULL,
        tags TEXT NOT NULL,
        facts TEXT NOT NULL,
        online INTEGER NOT NULL,
        boot BIGINT NOT NULL,
        session BIGINT NOT NULL,
        seq BIGINT NOT NULL,
        generation BIGINT NOT NULL,
        observed BIGINT NOT NULL,
        seen_at DOUBLE PRECISION NOT NULL,
        modules TEXT NOT NULL,
        refused TEXT NOT NULL,
        content TEXT NOT NULL,
        envelope TEXT NOT NULL,
        resets BIGINT NOT NULL
    )""",
    """CREATE TABLE IF NOT EXISTS fleet_deployments (
        name VARCHAR(63) PRIMARY KEY,
        made BIGINT NOT NULL,
        stable BIGINT NOT NULL,
        newest BIGINT NOT NULL,
        created_at DOUBLE PRECISION NOT NULL
    )""",
    """CREATE TABLE IF NOT EXISTS fleet_revisions (
        deployment VARCHAR(63) NOT NULL,
        number BIGINT NOT NULL,
        document TEXT NOT NULL,
        PRIMARY KEY (deployment, number)
    )""",
    # What a device was told that is newer than the deployment's stable revision.
    """CREATE TABLE IF NOT EXISTS fleet_assignments (
        deployment VARCHAR(63) NOT NULL,
        device VARCHAR(63) NOT NULL,
        revision BIGINT NOT NULL,
        PRIMARY KEY (deployment, device)
    )""",
    """CREATE TABLE IF NOT EXISTS fleet_rollouts (
        deployment VARCHAR(63) NOT NULL,
        revision BIGINT NOT NULL,
        state VARCHAR(16) NOT NULL,
        wave BIGINT NOT NULL,
        waves BIGINT NOT NULL,
        plan TEXT NOT NULL,
        note TEXT NOT NULL,
        created_at DOUBLE PRECISION NOT NULL,
        changed_at DOUBLE PRECISION NOT NULL,
        PRIMARY KEY (deployment, revision)
    )""",
    """CREATE TABLE IF NOT EXISTS fleet_members (
        deployment VARCHAR(63) NOT NULL,
        revision BIGINT NOT NULL,
        device VARCHAR(63) NOT NULL,
        wave BIGINT NOT NULL,
        state VARCHAR(16) NOT NULL,
        generation BIGINT NOT NULL,
        since DOUBLE PRECISION NOT NULL,
        progressed DOUBLE PRECISION NOT NULL,
        phase TEXT NOT NULL,
        note TEXT NOT NULL,
        excused INTEGER NOT NULL,
        absent INTEGER NOT NULL,
        earlier BIGINT NOT NULL,
        PRIMARY KEY (deployment, revision, device)
    )""",
    """CREATE TABLE IF NOT EXISTS fleet_commands (
        id VARCHAR(64) PRIMARY KEY,
        device VARCHAR(63) NOT NULL,
        verb TEXT NOT NULL,
        arguments TEXT NOT NULL,
        key TEXT NOT NULL,
        deadline DOUBLE PRECISION NOT NULL,
        state VARCHAR(16) NOT NULL,
        created_at DOUBLE PRECISION NOT NULL,
        output TEXT NOT NULL,
        failure TEXT NOT NULL
    )""",
    """CREATE TABLE IF NOT EXISTS fleet_events (
        number BIGINT PRIMARY KEY,
        at DOUBLE PRECISION NOT NULL,
        kind VARCHAR(16) NOT NULL,
        subject TEXT NOT NULL,
        text TEXT NOT NULL
    )""",
    # `changes`: counts up with everything that people change, for the controller that leads.
    """CREATE TABLE IF NOT EXISTS fleet_numbers (
        name VARCHAR(32) PRIMARY KEY,
        value BIGINT NOT NULL
    )""",
    """CREATE TABLE IF NOT EXISTS fleet_lease (
        name VARCHAR(32) PRIMARY KEY,
        holder TEXT NOT NULL,
        term BIGINT NOT NULL,
        beat BIGINT NOT NULL,
        watched_at DOUBLE PRECISION NOT NULL
    )""",
    """CREATE TABLE IF NOT EXISTS fleet_settings (
        name VARCHAR(64) PRIMARY KEY,
        value TEXT NOT NULL
    )""",
    """CREATE INDEX IF NOT EXISTS ix_fleet_commands_state ON fleet_commands (state)""",
)
MIGRATIONS: Final[Mapping[int, tuple[str, ...]]] = {1: _FIRST}
"""What brings the tables from the version before to this one."""

_NAME: Final = "fleet"


def prepare(
    database: Database,
    *,
    current: int = VERSION,
    migrations: Mapping[int, tuple[str, ...]] = MIGRATIONS,
) -> None:
    """Makes the tables or brings them forward; all at once or not at all.

    Args:
        database: Of a workspace.
        current: The version that this release knows.
        migrations: The steps to it.

    Raises:
        WorkspaceError: They were written by a newer release, or the database cannot be written.
    """
    with database.write() as connection:
        connection.execute(_SCHEMA)
        version = _version(connection)
        if version > current:
            raise WorkspaceError(
                f"The fleet's records were written by a newer Fieldpost: they have version "
                f"{version}, and this one knows {current}.",
                hint="Upgrade Fieldpost on this machine.",
            )
        for step in range(version + 1, current + 1):
            for statement in migrations[step]:
                connection.execute(statement)
        if version < current:
            connection.execute(
                "INSERT INTO fleet_schema (name, version) VALUES (:name, :version) "
                "ON CONFLICT (name) DO UPDATE SET version = excluded.version",
                name=_NAME,
                version=current,
            )


def _version(connection: Connection) -> int:
    rows = connection.execute("SELECT version FROM fleet_schema WHERE name = :name", name=_NAME)
    return int(rows[0]["version"]) if rows else 0

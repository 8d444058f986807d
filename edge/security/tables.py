"""The tables of certificates, claims and metadata, in the workspace's database.

The statements are SQL that SQLite and PostgreSQL take alike. The database is known by its form
alone, since this package imports nothing of the workspace.
"""

from __future__ import annotations

from typing import Final

from edge.workspace import Database

_TABLES: Final = (
    """CREATE TABLE IF NOT EXISTS fleet_metadata (
        name TEXT PRIMARY KEY,
        content TEXT NOT NULL
    )""",
    """CREATE TABLE IF NOT EXISTS fleet_claims (
        id TEXT PRIMARY KEY,
        digest TEXT NOT NULL,
        site TEXT NOT NULL,
        device TEXT NOT NULL,
        root_version BIGINT NOT NULL,
        expires_at DOUBLE PRECISION NOT NULL,
        used_at DOUBLE PRECISION,
        used_by TEXT
    )""",
    """CREATE TABLE IF NOT EXISTS fleet_certificates (
        serial TEXT PRIMARY KEY,
        site TEXT NOT NULL,
        device TEXT NOT NULL,
        key_digest TEXT NOT NULL,
        pem TEXT NOT NULL,
        issued_at DOUBLE PRECISION NOT NULL,
        expires_at DOUBLE PRECISION NOT NULL,
        follows TEXT,
        revoked_at DOUBLE PRECISION,
        reason TEXT
    )""",
    """CREATE INDEX IF NOT EXISTS fleet_certificates_device
        ON fleet_certificates (site, device)""",
    """CREATE UNIQUE INDEX IF NOT EXISTS fleet_certificates_follows
        ON fleet_certificates (follows)""",
)


def create_tables(database: Database) -> None:
    """Makes what is missing; raises WorkspaceError where the database cannot be written."""
    with database.write() as connection:
        for statement in _TABLES:
            connection.execute(statement)

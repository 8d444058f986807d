"""Numbers that count up and are never given twice, not even after a deletion."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from serve.registry import tables

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

    from serve.registry.database import Database

Kind = Literal["model", "environment", "package", "revision"]


def following(database: Database, connection: Connection, kind: Kind, name: str = "") -> int:
    """The next number of its kind; taken when the transaction commits."""
    table = tables.counters
    statement = database.insert_or_update(
        table, {"kind": kind, "name": name, "last": 1}, {"last": table.c.last + 1}
    )
    return int(connection.execute(statement).one().last)

"""Numbers that count up and are never given twice, not even after a deletion."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from serve.registry.connection import Connection

Kind = Literal["model", "environment", "package", "referrer", "revision"]

_COUNT = """
    INSERT INTO fieldpost_counters (kind, name, last) VALUES (:kind, :name, 1)
    ON CONFLICT (kind, name) DO UPDATE SET last = fieldpost_counters.last + 1
    RETURNING last
"""


def following(connection: Connection, kind: Kind, name: str = "") -> int:
    """The next number of its kind; taken when the transaction commits."""
    (row,) = connection.execute(_COUNT, kind=kind, name=name)
    return int(row["last"])

"""Records to rows of the tables and back."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from typing import Any, Final, TypeVar

import msgspec

from edge.controller.entities import (
    CommandRecord,
    Deployment,
    Device,
    Event,
    Member,
    Revision,
    Rollout,
)
from edge.workspace import Connection, Row
from scoring.errors import WorkspaceError

S = TypeVar("S", bound=msgspec.Struct)

_JSON: Final[Mapping[type[msgspec.Struct], tuple[str, ...]]] = {
    Device: ("tags", "facts", "modules", "refused"),
    Rollout: ("plan",),
    CommandRecord: ("arguments", "failure"),
}
"""The fields that are kept as JSON."""


def to_row(record: msgspec.Struct) -> Row:
    """A record as a row: structured fields as JSON, truth as 0 or 1."""
    kept = _JSON.get(type(record), ())
    row: Row = {}
    for name in record.__struct_fields__:
        value = getattr(record, name)
        if name in kept:
            row[name] = msgspec.json.encode(value).decode()
        else:
            row[name] = int(value) if isinstance(value, bool) else value
    return row


def from_row(row: Row, kind: type[S]) -> S:
    """The record of a row.

    Raises:
        WorkspaceError: The row is damaged.
    """
    values: dict[str, Any] = {name: row[name] for name in kind.__struct_fields__}
    try:
        for name in _JSON.get(kind, ()):
            values[name] = msgspec.json.decode(values[name])
        return msgspec.convert(values, kind, strict=False)
    except msgspec.DecodeError as error:
        raise WorkspaceError(
            f"A record of the fleet is damaged ({kind.__name__}): {error}.",
            hint="Restore the workspace's database from a copy.",
        ) from error


@functools.cache
def upsert(
    table: str, kind: type[msgspec.Struct], key: tuple[str, ...], extra: tuple[str, ...]
) -> str:
    """The statement that writes a record over the one with the same key.

    Args:
        table: One of ours.
        kind: Of the record.
        key: Its columns.
        extra: Further columns.
    """
    columns = [*extra, *kind.__struct_fields__]
    values = ", ".join(f":{name}" for name in columns)
    sets = ", ".join(f"{name} = excluded.{name}" for name in columns if name not in key)
    return (
        f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({values}) "  # noqa: S608 - ours
        f"ON CONFLICT ({', '.join(key)}) DO UPDATE SET {sets}"
    )


def write_devices(connection: Connection, devices: Iterable[Device]) -> None:
    """Writes devices, new or not."""
    _write(connection, "fleet_devices", Device, ("name",), map(to_row, devices))


def write_deployments(connection: Connection, deployments: Iterable[Deployment]) -> None:
    """Writes deployments, new or not."""
    _write(connection, "fleet_deployments", Deployment, ("name",), map(to_row, deployments))


def write_rollouts(connection: Connection, rollouts: Iterable[Rollout]) -> None:
    """Writes rollouts, new or not; their members are apart."""
    rows = map(to_row, rollouts)
    _write(connection, "fleet_rollouts", Rollout, ("deployment", "revision"), rows)


def write_members(connection: Connection, rollout: Rollout, members: Iterable[Member]) -> None:
    """Writes members of a rollout, new or not."""
    of = {"deployment": rollout.deployment, "revision": rollout.revision}
    rows = [of | to_row(member) for member in members]
    if rows:
        key = ("deployment", "revision", "device")
        statement = upsert("fleet_members", Member, key, ("deployment", "revision"))
        connection.execute_many(statement, rows)


def write_revision(connection: Connection, revision: Revision) -> None:
    """Writes a new revision."""
    connection.execute(
        "INSERT INTO fleet_revisions (deployment, number, document) "
        "VALUES (:deployment, :number, :document)",
        deployment=revision.deployment,
        number=revision.number,
        document=msgspec.json.encode(revision).decode(),
    )


def write_commands(connection: Connection, commands: Iterable[CommandRecord]) -> None:
    """Writes commands, new or not."""
    _write(connection, "fleet_commands", CommandRecord, ("id",), map(to_row, commands))


def _write(
    connection: Connection,
    table: str,
    kind: type[msgspec.Struct],
    key: tuple[str, ...],
    rows: Iterable[Row],
) -> None:
    listed = list(rows)
    if listed:
        connection.execute_many(upsert(table, kind, key, ()), listed)


def read_devices(connection: Connection, name: str = "") -> list[Device]:
    """All devices by name, or one."""
    found = connection.execute(
        "SELECT * FROM fleet_devices WHERE :name = '' OR name = :name ORDER BY name", name=name
    )
    return [from_row(row, Device) for row in found]


def read_deployments(connection: Connection) -> list[Deployment]:
    """All deployments by name."""
    found = connection.execute("SELECT * FROM fleet_deployments ORDER BY name")
    return [from_row(row, Deployment) for row in found]


def read_revisions(connection: Connection, deployment: str = "") -> list[Revision]:
    """All revisions, or those of one deployment, the oldest first."""
    found = connection.execute(
        "SELECT document FROM fleet_revisions WHERE :name = '' OR deployment = :name "
        "ORDER BY deployment, number",
        name=deployment,
    )
    return [msgspec.json.decode(row["document"], type=Revision) for row in found]


def read_rollouts(connection: Connection, deployment: str = "") -> list[Rollout]:
    """All rollouts, or those of one deployment, the oldest first."""
    found = connection.execute(
        "SELECT * FROM fleet_rollouts WHERE :name = '' OR deployment = :name "
        "ORDER BY created_at, deployment, revision",
        name=deployment,
    )
    return [from_row(row, Rollout) for row in found]


def read_members(connection: Connection, rollout: Rollout) -> list[Member]:
    """The members of a rollout, wave by wave."""
    found = connection.execute(
        "SELECT * FROM fleet_members WHERE deployment = :deployment AND revision = :revision "
        "ORDER BY wave, device",
        deployment=rollout.deployment,
        revision=rollout.revision,
    )
    return [from_row(row, Member) for row in found]


def read_assignments(connection: Connection) -> dict[tuple[str, str], int]:
    """Deployment and device to the revision that it was told, where that is not the stable one."""
    found = connection.execute("SELECT * FROM fleet_assignments")
    return {(row["deployment"], row["device"]): row["revision"] for row in found}


def read_commands(connection: Connection, *, id: str = "", state: str = "") -> list[CommandRecord]:  # noqa: A002
    """Commands, the oldest first: all, one, or those in a state."""
    found = connection.execute(
        "SELECT * FROM fleet_commands WHERE (:id = '' OR id = :id) "
        "AND (:state = '' OR state = :state) ORDER BY created_at, id",
        id=id,
        state=state,
    )
    return [from_row(row, CommandRecord) for row in found]


def read_events(connection: Connection, *, after: int = 0, most: int = 1000) -> list[Event]:
    """The newest events that come after a number, the oldest of them first."""
    found = connection.execute(
        "SELECT * FROM fleet_events WHERE number > :after ORDER BY number DESC LIMIT :most",
        after=after,
        most=most,
    )
    return [from_row(row, Event) for row in reversed(found)]


def number(connection: Connection, name: str) -> int:
    """A counter's value; 0 for one that was never counted up."""
    found = connection.execute("SELECT value FROM fleet_numbers WHERE name = :name", name=name)
    return int(found[0]["value"]) if found else 0


def count_up(connection: Connection, name: str) -> int:
    """Counts up; returns the new value."""
    found = connection.execute(
        "INSERT INTO fleet_numbers (name, value) VALUES (:name, 1) "
        "ON CONFLICT (name) DO UPDATE SET value = fleet_numbers.value + 1 RETURNING value",
        name=name,
    )
    return int(found[0]["value"])


def write_event(connection: Connection, at: float, kind: str, subject: str, text: str) -> None:
    """Writes down that something happened; the oldest ones go."""
    made = count_up(connection, "events")
    connection.execute(
        "INSERT INTO fleet_events (number, at, kind, subject, text) "
        "VALUES (:number, :at, :kind, :subject, :text)",
        number=made,
        at=at,
        kind=kind,
        subject=subject,
        text=text[:2000],
    )
    connection.execute(
        "DELETE FROM fleet_events WHERE number <= :number", number=made - MOST_EVENTS
    )


MOST_EVENTS: Final = 20_000

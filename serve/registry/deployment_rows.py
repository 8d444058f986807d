"""Deployments and their revisions between their rows and their records."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

import msgspec

from scoring.errors import NotFoundError
from serve.registry.records import Deployment, Revision
from serve.registry.statements import assignments

if TYPE_CHECKING:
    from serve.registry.connection import Connection, Row

_OF_NAME = " WHERE name = :name"
_OF_DEPLOYMENT = " WHERE deployment = :name"
_SELECT = "SELECT * FROM fieldpost_deployments"
_BY_NAME = " ORDER BY name"
_SELECT_REVISIONS = "SELECT * FROM fieldpost_revisions"
_BY_NUMBER = " ORDER BY number"


def set_state(connection: Connection, name: str, number: int, state: str, **values: str) -> None:
    """Gives a revision a state, and other columns these values."""
    values["state"] = state
    statement = f"""
        UPDATE fieldpost_revisions SET {assignments(values)}
        WHERE deployment = :name AND number = :number
    """  # noqa: S608 - columns of our own
    connection.execute(statement, name=name, number=number, **values)


def update(connection: Connection, name: str, **values: Any) -> None:
    """Gives columns of a deployment these values."""
    statement = f"UPDATE fieldpost_deployments SET {assignments(values)}"  # noqa: S608 - our own
    connection.execute(statement + _OF_NAME, name=name, **values)


def read_revision(connection: Connection, name: str, number: int) -> Revision:
    """The revision of this number; raises `NotFoundError` where there is none."""
    found = read_one(connection, name).revision(number)
    if found is None:
        raise NotFoundError(
            f"The deployment {name!r} has no revision {number}.",
            hint=f"'fieldpost deployment show {name}' lists its revisions.",
        )
    return found


def read_one(connection: Connection, name: str) -> Deployment:
    """The deployment of this name; raises `NotFoundError` where there is none."""
    found = read(connection, name)
    if not found:
        raise NotFoundError(
            f"There is no deployment {name!r}.",
            hint="'fieldpost deployment list' shows those that there are.",
        )
    return found[0]


def read(connection: Connection, name: str | None = None) -> list[Deployment]:
    """The deployment of this name, or all, with their revisions."""
    one, of_one = ("", "") if name is None else (_OF_NAME, _OF_DEPLOYMENT)
    rows = connection.execute(_SELECT + one + _BY_NAME, name=name)
    revisions: dict[str, list[Revision]] = defaultdict(list)
    for row in connection.execute(_SELECT_REVISIONS + of_one + _BY_NUMBER, name=name):
        revisions[row["deployment"]].append(_revision_record(row))
    return [_record(row, revisions[row["name"]]) for row in rows]


def _record(row: Row, revisions: list[Revision]) -> Deployment:
    active = next((each for each in revisions if each.number == row["active"]), None)
    shown = active or (revisions[-1] if revisions else None)
    return Deployment(
        name=row["name"],
        target=row["target"],
        desired=row["desired"],
        active=row["active"],
        address=row["address"],
        settings=shown.settings if shown else {},
        revisions=tuple(revisions),
        created_at=row["created_at"],
    )


def _revision_record(row: Row) -> Revision:
    return Revision(
        deployment=row["deployment"],
        number=row["number"],
        package=row["package"],
        target=row["target"],
        settings=msgspec.json.decode(row["settings"]),
        state=row["state"],
        created_at=row["created_at"],
        created_by=row["created_by"],
        rollback_of=row["rollback_of"],
        reason=row["reason"],
        detail=row["detail"],
    )

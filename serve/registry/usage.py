"""What uses what: the rules that keep things from being deleted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa

from scoring.errors import InUseError
from serve.registry import owner, tables

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy.engine import Connection

    from serve.registry.records import ModelVersion

_deployments, _revisions, _packages = tables.deployments, tables.revisions, tables.packages


def users_of_model(connection: Connection, name: str, version: int) -> list[str]:
    """The deployments that run a model version, or are about to, by name."""
    statement = _in_use().where(_packages.c.model == name, _packages.c.model_version == version)
    return _living(connection, statement)


def users_of_package(connection: Connection, digest: str) -> list[str]:
    """The deployments that have the package in any of their revisions, by name."""
    statement = sa.select(_revisions.c.deployment).where(_revisions.c.package == digest).distinct()
    return sorted(connection.execute(statement).scalars())


def _in_use() -> sa.Select[str, str, str]:
    running = sa.and_(
        _deployments.c.desired == "running", _deployments.c.active == _revisions.c.number
    )
    return (
        sa.select(_deployments.c.name, _revisions.c.state, _revisions.c.owner)
        .join(_revisions, _revisions.c.deployment == _deployments.c.name)
        .join(_packages, _packages.c.digest == _revisions.c.package)
        .where(sa.or_(running, _revisions.c.state == "pending"))
    )


def _living(connection: Connection, statement: sa.Select[str, str, str]) -> list[str]:
    """Leaves out revisions that are pending because the command that made them was killed."""
    return sorted(
        {
            row.name
            for row in connection.execute(statement)
            if row.state != "pending" or not owner.is_gone(row.owner)
        }
    )


def require_unused(connection: Connection, version: ModelVersion) -> None:
    """Raises `InUseError` where a deployment uses the version."""
    users = users_of_model(connection, version.name, version.version)
    if users:
        raise InUseError(
            f"{version.ref} is used by {_listed(users)}.",
            hint=f"Stop it first: 'fieldpost deployment stop {users[0]}'.",
        )


def _listed(users: list[str]) -> str:
    return f"the deployment{'s' if len(users) > 1 else ''} {', '.join(users)}"


def require_package_unused(connection: Connection, digest: str) -> None:
    """Raises `InUseError` where a deployment has the package in a revision."""
    users = users_of_package(connection, digest)
    if users:
        raise InUseError(
            f"The package {digest} belongs to {_listed(users)}.",
            hint=f"Stop and delete it first: 'fieldpost deployment stop {users[0]}' and "
            f"'fieldpost deployment delete {users[0]}'.",
        )


def drop_packages_of(connection: Connection, version: ModelVersion) -> tuple[list[str], list[str]]:
    """Deletes the packages of a version that no deployment has.

    Returns:
        Their digests, and the digests of all blobs that they referenced.
    """
    mine = sa.and_(_packages.c.model == version.name, _packages.c.model_version == version.version)
    return _drop_undeployed(connection, mine)


def drop_orphaned_packages(connection: Connection) -> list[str]:
    """Deletes the packages of deleted versions that no deployment has any more."""
    versions = tables.model_versions
    there = sa.exists().where(
        versions.c.name == _packages.c.model, versions.c.version == _packages.c.model_version
    )
    return _drop_undeployed(connection, sa.and_(_packages.c.model_version.is_not(None), ~there))[0]


def _drop_undeployed(
    connection: Connection, condition: sa.ColumnElement[bool]
) -> tuple[list[str], list[str]]:
    deployed = sa.exists().where(_revisions.c.package == _packages.c.digest)
    statement = sa.select(_packages.c.digest).where(condition, ~deployed)
    found = list(connection.execute(statement).scalars())
    return found, drop_packages(connection, found)


def drop_packages(connection: Connection, digests: Iterable[str]) -> list[str]:
    """Deletes packages; returns the digests of all blobs that they referenced."""
    wanted = list(digests)
    blobs = tables.package_blobs
    listed = connection.execute(sa.select(blobs.c.digest).where(blobs.c.package.in_(wanted)))
    freed = [*wanted, *listed.scalars()]
    connection.execute(sa.delete(_packages).where(_packages.c.digest.in_(wanted)))
    return freed

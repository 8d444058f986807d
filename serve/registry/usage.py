"""What uses what: the rules that keep things from being deleted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scoring.errors import InUseError
from serve.registry import owner

if TYPE_CHECKING:
    from collections.abc import Iterable

    from serve.registry.connection import Connection
    from serve.registry.keepers import Keep
    from serve.registry.records import ModelVersion

_USERS_OF_MODEL = """
    SELECT d.name, r.state, r.owner
    FROM fieldpost_deployments d
    JOIN fieldpost_revisions r ON r.deployment = d.name
    JOIN fieldpost_packages p ON p.digest = r.package
    WHERE p.model = :model AND p.model_version = :version
      AND ((d.desired = 'running' AND d.active = r.number) OR r.state = 'pending')
"""
_USERS_OF_PACKAGE = """
    SELECT DISTINCT deployment FROM fieldpost_revisions WHERE package = :package
"""
_UNDEPLOYED = """
    NOT EXISTS (SELECT 1 FROM fieldpost_revisions r WHERE r.package = p.digest)
"""
_OF_MODEL = f"""
    SELECT p.digest FROM fieldpost_packages p
    WHERE p.model = :model AND p.model_version = :version AND {_UNDEPLOYED}
"""  # noqa: S608 - text of our own
_ORPHANED = f"""
    SELECT p.digest FROM fieldpost_packages p
    WHERE p.model_version IS NOT NULL AND {_UNDEPLOYED} AND NOT EXISTS (
        SELECT 1 FROM fieldpost_model_versions v
        WHERE v.name = p.model AND v.version = p.model_version
    )
"""  # noqa: S608 - text of our own
_ENDPOINTS_OF = """
    SELECT endpoint FROM fieldpost_endpoint_backends WHERE deployment = :deployment
    ORDER BY endpoint
"""
_BLOBS_OF = """
    SELECT digest FROM fieldpost_package_blobs WHERE package = :package
    UNION SELECT digest FROM fieldpost_referrers WHERE subject = :package
    UNION SELECT b.digest FROM fieldpost_referrer_blobs b
    JOIN fieldpost_referrers r ON r.digest = b.referrer WHERE r.subject = :package
"""
_ALL_OF_MODEL = """
    SELECT digest FROM fieldpost_packages WHERE model = :model AND model_version = :version
"""
_DROP = "DELETE FROM fieldpost_packages WHERE digest = :package"


def users_of_model(connection: Connection, name: str, version: int) -> list[str]:
    """The deployments that run a model version, or are about to, by name."""
    rows = connection.execute(_USERS_OF_MODEL, model=name, version=version)
    # A revision may be pending because the command that made it was killed.
    living = {
        row["name"] for row in rows if row["state"] != "pending" or not owner.is_gone(row["owner"])
    }
    return sorted(living)


def users_of_package(connection: Connection, digest: str) -> list[str]:
    """The deployments that have the package in any of their revisions, by name."""
    rows = connection.execute(_USERS_OF_PACKAGE, package=digest)
    return sorted(row["deployment"] for row in rows)


def require_unused(
    connection: Connection, version: ModelVersion, kept: Iterable[Keep] = ()
) -> None:
    """Raises `InUseError` where a deployment, or a keeper, uses the version."""
    users = users_of_model(connection, version.name, version.version)
    if users:
        raise InUseError(
            f"{version.ref} is used by {_listed(users)}.",
            hint=f"Stop it first: 'fieldpost deployment stop {users[0]}'.",
        )
    rows = connection.execute(_ALL_OF_MODEL, model=version.name, version=version.version)
    packages = {row["digest"] for row in rows}
    for keep in kept:
        if keep.runs and keep.package in packages:
            raise InUseError(f"{version.ref} is used by {keep.by}.", hint=keep.hint)


def _listed(users: list[str]) -> str:
    return f"the deployment{'s' if len(users) > 1 else ''} {', '.join(users)}"


def require_package_unused(connection: Connection, digest: str, kept: Iterable[Keep] = ()) -> None:
    """Raises `InUseError` where a deployment has the package in a revision, or a keeper has it."""
    users = users_of_package(connection, digest)
    if users:
        raise InUseError(
            f"The package {digest} belongs to {_listed(users)}.",
            hint=f"Stop and delete it first: 'fieldpost deployment stop {users[0]}' and "
            f"'fieldpost deployment delete {users[0]}'.",
        )
    for keep in kept:
        if keep.package == digest:
            raise InUseError(f"The package {digest} belongs to {keep.by}.", hint=keep.hint)


def require_deployment_unused(connection: Connection, name: str) -> None:
    """Raises `InUseError` where an endpoint leads to the deployment."""
    users = [row["endpoint"] for row in connection.execute(_ENDPOINTS_OF, deployment=name)]
    if users:
        raise InUseError(
            f"The endpoint {users[0]!r} leads to the deployment {name!r}.",
            hint=f"Take it out first: 'fieldpost endpoint traffic {users[0]} ...', or "
            f"'fieldpost endpoint delete {users[0]}'.",
        )


def drop_packages_of(
    connection: Connection, version: ModelVersion, kept: Iterable[Keep] = ()
) -> tuple[list[str], list[str]]:
    """Deletes the packages of a version that no deployment and no keeper has.

    Returns:
        Their digests, and the digests of all blobs that they referenced.
    """
    rows = connection.execute(_OF_MODEL, model=version.name, version=version.version)
    found = _not_kept((row["digest"] for row in rows), kept)
    return found, drop_packages(connection, found)


def _not_kept(digests: Iterable[str], kept: Iterable[Keep]) -> list[str]:
    used = {keep.package for keep in kept}
    return [digest for digest in digests if digest not in used]


def drop_orphaned_packages(connection: Connection, kept: Iterable[Keep] = ()) -> list[str]:
    """Deletes the packages of deleted versions that no deployment and no keeper has any more."""
    found = _not_kept((row["digest"] for row in connection.execute(_ORPHANED)), kept)
    drop_packages(connection, found)
    return found


def drop_packages(connection: Connection, digests: Iterable[str]) -> list[str]:
    """Deletes packages and what is attached to them; returns the digests of all their blobs."""
    wanted = [*digests]
    freed = list(wanted)
    for package in wanted:
        freed += [row["digest"] for row in connection.execute(_BLOBS_OF, package=package)]
        connection.execute(_DROP, package=package)
    return freed

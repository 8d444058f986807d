"""Deployments: what should run, and which revision of it answers.

The registry holds what is wished for; what really runs is for the target to say.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from scoring.errors import InUseError, NotFoundError, UsageError
from serve.registry import counters, names, owner, provenance, usage
from serve.registry import deployment_rows as rows
from serve.registry.statements import insert

if TYPE_CHECKING:
    import builtins
    from collections.abc import Mapping

    from serve.registry.connection import Connection
    from serve.registry.database import Database
    from serve.registry.records import Deployment, Revision

_MAX_DETAIL = 1 << 20

_TABLE, _REVISIONS = "fieldpost_deployments", "fieldpost_revisions"
_FIND = "SELECT target, desired FROM fieldpost_deployments WHERE name = :name"
_PENDING = """
    SELECT number, owner FROM fieldpost_revisions
    WHERE deployment = :name AND state = 'pending' ORDER BY number
"""
_SUPERSEDE = """
    UPDATE fieldpost_revisions SET state = 'superseded'
    WHERE deployment = :name AND state = 'active'
"""
_DELETE = "DELETE FROM fieldpost_deployments WHERE name = :name"
_PACKAGE = "SELECT digest FROM fieldpost_packages WHERE digest = :digest"


class DeploymentStore:
    """The deployments of a workspace."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create_revision(
        self,
        name: str,
        *,
        target: str,
        package: str,
        settings: Mapping[str, str] | None = None,
        by: str | None = None,
        rollback_of: int | None = None,
    ) -> Revision:
        """Records an attempt to run a package, `pending` until `activate` or `fail`.

        It makes the deployment where there is none. A revision that is pending because its
        command was killed becomes `abandoned`.

        Args:
            name: The deployment's name.
            target: Where it runs.
            package: The package's digest.
            settings: What the target is told.
            by: The user; the one that runs the process by default.
            rollback_of: The revision whose package is brought back.

        Raises:
            NotFoundError: There is no such package.
            InUseError: Another command is deploying under this name now.
            UsageError: The deployment runs on another target.
        """
        names.check_name(name, "deployment")
        with self._database.write() as connection:
            _require_package(connection, package)
            self._ensure(connection, name, target)
            _abandon_or_refuse(connection, name)
            number = counters.following(connection, "revision", name)
            row = {
                "deployment": name,
                "number": number,
                "package": package,
                "target": target,
                "settings": msgspec.json.encode(dict(settings or {}), order="sorted").decode(),
                "state": "pending",
                "created_at": provenance.now(),
                "created_by": by or provenance.user(),
                "rollback_of": rollback_of,
                "reason": "",
                "detail": "",
                "owner": owner.encode(owner.current()),
            }
            connection.execute(insert(_REVISIONS, row), **row)
            return rows.read_revision(connection, name, number)

    def _ensure(self, connection: Connection, name: str, target: str) -> None:
        found = connection.execute(_FIND, name=name)
        if not found:
            values = {
                "name": name,
                "target": target,
                "desired": "stopped",
                "active": None,
                "address": "",
                "created_at": provenance.now(),
            }
            connection.execute(insert(_TABLE, values), **values)
        elif (taken := found[0]["target"]) != target:
            if found[0]["desired"] == "running":
                raise UsageError(
                    f"The deployment {name!r} runs on the target {taken!r}, not {target!r}.",
                    hint=f"Choose another name, or stop it: 'fieldpost deployment stop {name}'.",
                )
            rows.update(connection, name, target=target, address="")

    def activate(self, name: str, number: int) -> Deployment:
        """Makes a pending revision the one that answers, in one transaction.

        The one before becomes `superseded`; the deployment is to run. Doing it twice is the same
        as doing it once.

        Raises:
            NotFoundError: There is no such deployment or revision.
            UsageError: The revision failed, or was given up for dead.
        """
        with self._database.write() as connection:
            found = rows.read_revision(connection, name, number)
            if found.state not in ("pending", "active"):
                raise UsageError(
                    f"Revision {number} of {name!r} is {found.state}; it cannot become active.",
                    hint=f"Deploy its package again, or 'fieldpost deployment rollback {name}'.",
                )
            connection.execute(_SUPERSEDE, name=name)
            rows.set_state(connection, name, number, "active")
            rows.update(connection, name, active=number, desired="running")
            return rows.read_one(connection, name)

    def fail(self, name: str, number: int, reason: str, detail: str = "") -> Deployment:
        """Records that a pending revision never became ready; the active one stays.

        Args:
            name: The deployment.
            number: The revision.
            reason: Why, in a sentence.
            detail: The script's traceback or the like; the end of it is kept.

        Raises:
            NotFoundError: There is no such deployment or revision.
            UsageError: The revision is not pending.
        """
        with self._database.write() as connection:
            found = rows.read_revision(connection, name, number)
            if found.state not in ("pending", "failed", "abandoned"):
                raise UsageError(f"Revision {number} of {name!r} is {found.state}, not pending.")
            said = {"reason": _printable(reason), "detail": _printable(detail)[-_MAX_DETAIL:]}
            rows.set_state(connection, name, number, "failed", **said)
            return rows.read_one(connection, name)

    def stop(self, name: str) -> Deployment:
        """Records that nothing is to run; raises `NotFoundError` where there is no such name."""
        return self._change(name, desired="stopped")

    def start(self, name: str) -> Deployment:
        """Records that the active revision is to run again.

        Raises:
            NotFoundError: There is no such deployment.
            UsageError: None of its revisions ever became active.
        """
        with self._database.write() as connection:
            if rows.read_one(connection, name).active is None:
                raise UsageError(
                    f"No revision of {name!r} ever became active.",
                    hint=f"Deploy a package: 'fieldpost deploy {name} --package REF'.",
                )
            rows.update(connection, name, desired="running")
            return rows.read_one(connection, name)

    def set_address(self, name: str, url: str) -> Deployment:
        """Records where the deployment answers; raises `NotFoundError` for no such name."""
        return self._change(name, address=url)

    def _change(self, name: str, **values: Any) -> Deployment:
        with self._database.write() as connection:
            rows.read_one(connection, name)
            rows.update(connection, name, **values)
            return rows.read_one(connection, name)

    def get(self, name: str) -> Deployment:
        """The deployment of this name.

        Raises:
            NotFoundError: There is none.
            InvalidNameError: The name has not the right form.
        """
        names.check_name(name, "deployment")
        with self._database.read() as connection:
            return rows.read_one(connection, name)

    def list(self) -> tuple[Deployment, ...]:
        """All deployments, by name."""
        with self._database.read() as connection:
            return tuple(rows.read(connection))

    def delete(self, name: str) -> None:
        """Forgets a stopped deployment and its revisions.

        Raises:
            NotFoundError: There is none.
            InUseError: It is to run, is being deployed now, or an endpoint leads to it.
        """
        with self._database.write() as connection:
            if rows.read_one(connection, name).desired == "running":
                raise InUseError(
                    f"The deployment {name!r} is running.",
                    hint=f"Stop it first: 'fieldpost deployment stop {name}'.",
                )
            usage.require_deployment_unused(connection, name)
            _abandon_or_refuse(connection, name)
            connection.execute(_DELETE, name=name)

    def uses(self, model: str, version: int) -> builtins.list[str]:
        """The deployments that run this model version, or are about to, by name."""
        with self._database.read() as connection:
            return usage.users_of_model(connection, model, version)


def _require_package(connection: Connection, digest: str) -> None:
    if not connection.execute(_PACKAGE, digest=digest):
        raise NotFoundError(
            f"There is no package {digest!r}.",
            hint="'fieldpost package list' shows those that there are.",
        )


def _abandon_or_refuse(connection: Connection, name: str) -> None:
    """Clears pending revisions of killed commands; refuses while a living command has one."""
    for row in connection.execute(_PENDING, name=name):
        if not owner.is_gone(row["owner"]):
            raise InUseError(
                f"Another command is deploying {name!r} now (revision {row['number']}).",
                hint="Wait until it has finished, then run this one again.",
            )
        reason = "The command that deployed it went away before it was ready."
        rows.set_state(connection, name, row["number"], "abandoned", reason=reason)


def _printable(text: str) -> str:
    """Text as a database can hold it: tracebacks come with any bytes in them."""
    return text.replace("\0", "\ufffd").encode(errors="replace").decode()

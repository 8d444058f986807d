"""Endpoints: the stable URLs in front of deployments, as they are wished for.

Each change counts the generation up. Who changes what it has read before (a promotion, say) names
the generation that it has read, so that a user's change in between is never undone unseen.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from scoring.errors import AlreadyExistsError, InUseError, NotFoundError
from serve.registry import names, provenance
from serve.registry.records import Endpoint
from serve.registry.statements import assignments, insert

if TYPE_CHECKING:
    import builtins
    from collections.abc import Iterable, Mapping

    from serve.registry.connection import Connection, Row
    from serve.registry.database import Database

_TABLE, _BACKENDS = "fieldpost_endpoints", "fieldpost_endpoint_backends"
_OF_NAME = " WHERE name = :name"
_SELECT = "SELECT * FROM fieldpost_endpoints"
_BY_NAME = " ORDER BY name"
_DELETE = "DELETE FROM fieldpost_endpoints WHERE name = :name"
_CLEAR = "DELETE FROM fieldpost_endpoint_backends WHERE endpoint = :name"
_DEPLOYMENT = "SELECT name FROM fieldpost_deployments WHERE name = :deployment"


class EndpointStore:
    """The endpoints of a workspace."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(
        self,
        name: str,
        *,
        target: str,
        traffic: Mapping[str, Any],
        backends: Iterable[str],
        settings: Mapping[str, str] | None = None,
    ) -> Endpoint:
        """Records an endpoint that is to answer.

        Args:
            name: Its name.
            target: What answers at its URL.
            traffic: How requests are spread, as plain values.
            backends: The deployments that `traffic` names.
            settings: What the front is told.

        Raises:
            AlreadyExistsError: There is one of that name.
            NotFoundError: One of the deployments is not there.
        """
        names.check_name(name, "endpoint")
        now = provenance.now()
        row = {
            "name": name,
            "target": target,
            "desired": "running",
            "generation": 1,
            "address": "",
            "traffic": _text(traffic),
            "settings": _text(settings or {}),
            "promotion": "",
            "created_at": now,
            "changed_at": now,
            "changed_by": provenance.user(),
        }
        with self._database.write() as connection:
            if connection.execute(_SELECT + _OF_NAME, name=name):
                raise AlreadyExistsError(
                    f"There is an endpoint {name!r} already.",
                    hint=f"Change it: 'fieldpost endpoint traffic {name} ...'.",
                )
            connection.execute(insert(_TABLE, row), **row)
            _lead_to(connection, name, backends)
            return _read_one(connection, name)

    def change(
        self,
        name: str,
        *,
        traffic: Mapping[str, Any] | None = None,
        backends: Iterable[str] | None = None,
        settings: Mapping[str, str] | None = None,
        promotion: Mapping[str, Any] | None = None,
        expected: int | None = None,
    ) -> Endpoint:
        """Changes what is given, in one transaction, and counts the generation up.

        Args:
            name: The endpoint.
            traffic: How requests are spread from now on; with `backends`.
            backends: The deployments that `traffic` and `promotion` name.
            settings: What the front is told from now on.
            promotion: The promotion as it is now; an empty one for none.
            expected: The generation that this change builds on; None for any.

        Raises:
            NotFoundError: There is no such endpoint or deployment.
            InUseError: It was changed since `expected`.
        """
        given = {"traffic": traffic, "settings": settings, "promotion": promotion}
        values: dict[str, Any] = {
            key: _text(value) if value or key != "promotion" else ""
            for key, value in given.items()
            if value is not None
        }
        with self._database.write() as connection:
            found = _read_one(connection, name)
            if expected is not None and found.generation != expected:
                raise InUseError(
                    f"The endpoint {name!r} was changed meanwhile.",
                    hint=f"Look at it ('fieldpost endpoint show {name}') and try again.",
                )
            values |= {"generation": found.generation + 1, "changed_at": provenance.now()}
            _update(connection, name, values | {"changed_by": provenance.user()})
            if backends is not None:
                connection.execute(_CLEAR, name=name)
                _lead_to(connection, name, backends)
            return _read_one(connection, name)

    def set_address(self, name: str, url: str) -> Endpoint:
        """Records where it answers; raises `NotFoundError` where there is no such name."""
        return self._set(name, {"address": url})

    def start(self, name: str) -> Endpoint:
        """Records that it is to answer; raises `NotFoundError` where there is no such name."""
        return self._set(name, {"desired": "running"})

    def stop(self, name: str) -> Endpoint:
        """Records that nothing is to answer; raises `NotFoundError` for no such name."""
        return self._set(name, {"desired": "stopped"})

    def get(self, name: str) -> Endpoint:
        """The endpoint of this name.

        Raises:
            NotFoundError: There is none.
            InvalidNameError: The name has not the right form.
        """
        names.check_name(name, "endpoint")
        with self._database.read() as connection:
            return _read_one(connection, name)

    def list(self) -> tuple[Endpoint, ...]:
        """All endpoints, by name."""
        with self._database.read() as connection:
            return tuple(_record(row) for row in connection.execute(_SELECT + _BY_NAME))

    def delete(self, name: str) -> None:
        """Forgets an endpoint.

        Raises:
            NotFoundError: There is none.
            InUseError: It is to answer.
        """
        with self._database.write() as connection:
            if _read_one(connection, name).desired == "running":
                raise InUseError(
                    f"The endpoint {name!r} is to answer.", hint="It has to be stopped first."
                )
            connection.execute(_DELETE, name=name)

    def leading_to(self, deployment: str) -> builtins.list[str]:
        """The endpoints that lead to a deployment, by name."""
        statement = f"SELECT endpoint FROM {_BACKENDS} WHERE deployment = :deployment"  # noqa: S608
        with self._database.read() as connection:
            rows = connection.execute(statement + " ORDER BY endpoint", deployment=deployment)
        return [row["endpoint"] for row in rows]

    def _set(self, name: str, values: dict[str, Any]) -> Endpoint:
        with self._database.write() as connection:
            _read_one(connection, name)
            _update(connection, name, values)
            return _read_one(connection, name)


def _update(connection: Connection, name: str, values: dict[str, Any]) -> None:
    statement = f"UPDATE {_TABLE} SET {assignments(values)}"  # noqa: S608 - columns of our own
    connection.execute(statement + _OF_NAME, name=name, **values)


def _lead_to(connection: Connection, name: str, backends: Iterable[str]) -> None:
    for deployment in sorted(set(backends)):
        if not connection.execute(_DEPLOYMENT, deployment=deployment):
            raise NotFoundError(
                f"There is no deployment {deployment!r}.",
                hint="'fieldpost deployment list' shows those that there are.",
            )
        row = {"endpoint": name, "deployment": deployment}
        connection.execute(insert(_BACKENDS, row), **row)


def _read_one(connection: Connection, name: str) -> Endpoint:
    rows = connection.execute(_SELECT + _OF_NAME, name=name)
    if not rows:
        raise NotFoundError(
            f"There is no endpoint {name!r}.",
            hint="'fieldpost endpoint list' shows those that there are.",
        )
    return _record(rows[0])


def _record(row: Row) -> Endpoint:
    decoded: dict[str, Any] = {
        key: msgspec.json.decode(row[key]) for key in ("traffic", "settings")
    }
    promotion = msgspec.json.decode(row["promotion"]) if row["promotion"] else None
    return msgspec.convert({**row, **decoded, "promotion": promotion}, Endpoint)


def _text(value: Mapping[str, Any]) -> str:
    return msgspec.json.encode(dict(value), order="sorted").decode()

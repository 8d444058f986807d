"""Settings of a workspace: what holds for everyone who uses it."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import msgspec

from scoring.errors import WorkspaceError
from serve.registry.statements import insert

if TYPE_CHECKING:
    from serve.registry.database import Database

Value = TypeVar("Value")

_TABLE = "fieldpost_settings"
_SELECT = "SELECT value FROM fieldpost_settings WHERE name = :name"
_AGAIN = " ON CONFLICT (name) DO UPDATE SET value = excluded.value"
_DELETE = "DELETE FROM fieldpost_settings WHERE name = :name"


class SettingStore:
    """The settings of a workspace, by name."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, name: str, kind: type[Value]) -> Value | None:
        """The value of a setting; None where it was never set.

        Raises:
            WorkspaceError: What is stored is not of this kind: a newer release wrote it.
        """
        with self._database.read() as connection:
            rows = connection.execute(_SELECT, name=name)
        if not rows:
            return None
        try:
            return msgspec.json.decode(rows[0]["value"], type=kind)
        except (msgspec.DecodeError, msgspec.ValidationError) as error:
            raise WorkspaceError(
                f"The workspace's setting {name!r} cannot be read: {error}.",
                hint="Upgrade Fieldpost on this machine, or set it again.",
            ) from error

    def set(self, name: str, value: object) -> None:
        """Sets a value, in place of the one before."""
        columns = {"name": name, "value": msgspec.json.encode(value, order="sorted").decode()}
        with self._database.write() as connection:
            connection.execute(insert(_TABLE, columns) + _AGAIN, **columns)

    def remove(self, name: str) -> None:
        """Forgets a setting; one that was never set is no error."""
        with self._database.write() as connection:
            connection.execute(_DELETE, name=name)

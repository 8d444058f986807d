"""Who else uses packages of a workspace: fleets, say. They tell, through an entry point.

A keeper stands in the group `fieldpost.keepers`. It is asked inside the transaction that would
delete something, gets that and the names of all tables there are, and yields what it keeps.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from scoring.errors import WorkspaceError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from serve.registry.connection import Connection
    from serve.registry.database import Database

GROUP: Final = "fieldpost.keepers"


class Keep(NamedTuple):
    """A use of a package.

    Attributes:
        package: Its digest.
        by: Who uses it: `the fleet's deployment iris`.
        runs: Whether it runs there, or is to; otherwise somebody may go back to it.
        hint: How it is let go.
    """

    package: str
    by: str
    runs: bool
    hint: str


def kept(database: Database, connection: Connection) -> list[Keep]:
    """All uses of packages that keepers tell of.

    Raises:
        WorkspaceError: One of them cannot be asked: then nothing may be deleted.
    """
    tables = database.tables(connection)
    return [Keep(*use) for ask in _keepers() for use in ask(connection, tables)]


@cache
def _keepers() -> list[Callable[[Any, set[str]], Iterable[tuple[str, str, bool, str]]]]:
    from importlib.metadata import entry_points  # noqa: PLC0415 - 20 ms, and few commands delete

    found = []
    for point in sorted(entry_points(group=GROUP), key=lambda point: point.name):
        try:
            found.append(point.load())
        except (ImportError, AttributeError) as error:
            raise WorkspaceError(
                f"What {point.name!r} uses of the workspace cannot be asked: {error}.",
                hint=f"Install what it needs, or repair {point.value}.",
            ) from error
    return found

"""Which packages a fleet uses, for those who delete packages; found by an entry point.

It stands for itself: whoever deletes a package has no fleet's libraries, and need not.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import msgspec

from edge.workspace import Connection

_REVISIONS: Final = "fleet_revisions"
_DEPLOYMENTS: Final = "fleet_deployments"


class _Module(msgspec.Struct):
    package: str


class _Document(msgspec.Struct):
    modules: dict[str, _Module]


def packages(connection: Connection, tables: set[str]) -> Iterator[tuple[str, str, bool, str]]:
    """The packages of all revisions of a fleet's deployments.

    Args:
        connection: Of the transaction that would delete something.
        tables: The names of all tables there are.

    Yields:
        The package, who uses it, whether devices run it or are to, and how it is let go.
    """
    if not {_REVISIONS, _DEPLOYMENTS} <= tables:
        return
    rows = connection.execute(
        "SELECT r.deployment, r.number, r.document, d.stable FROM fleet_revisions r "
        "JOIN fleet_deployments d ON d.name = r.deployment ORDER BY r.deployment, r.number"
    )
    for row in rows:
        name = row["deployment"]
        hint = f"Take it from the fleet first: 'fieldpost fleet remove {name}'."
        for package in _packages(row):
            # What is newer than the stable revision may be on its way, or where a rollout halted.
            yield package, f"the fleet's deployment {name}", row["number"] >= row["stable"], hint


def _packages(row: dict[str, Any]) -> list[str]:
    document = msgspec.json.decode(row["document"], type=_Document)
    return sorted({module.package for module in document.modules.values()})

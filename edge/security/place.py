"""Where a controller keeps its keys, and how they are opened."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from edge.security.fleet import FleetSecurity
    from edge.workspace import Workspace

FOLDER: Final = ("fleet", "keys")
"""Of the workspace, unless somebody says otherwise."""

FOLDER_VARIABLE: Final = "FIELDPOST_FLEET_KEYS"
PASSWORD_VARIABLE: Final = "FIELDPOST_FLEET_PASSWORD"  # noqa: S105 - its name, not a password


def password() -> str:
    """Of key files; from the environment alone, where no list of processes shows it."""
    return os.environ.get(PASSWORD_VARIABLE, "")


def security_of(workspace: Workspace, folder: Path | None = None) -> FleetSecurity:
    """The security of a workspace's fleet.

    Args:
        workspace: Which.
        folder: The controller's keys; `$FIELDPOST_FLEET_KEYS`, or those in the workspace.
    """
    from edge.security.fleet import FleetSecurity  # noqa: PLC0415 - the names above cost nothing

    named = os.environ.get(FOLDER_VARIABLE, "")
    keys = folder or (Path(named) if named else workspace.folder.joinpath(*FOLDER))
    return FleetSecurity(keys, workspace.registry.database, password=password())

"""The workspace, as the fleet sees it: records, blobs, packages; found by an entry point.

`edge` imports nothing of what keeps workspaces. Whoever does offers a class under the group
`fieldpost.workspaces`; what the fleet needs of it is said here, as protocols.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Final, Protocol, Self, cast

from scoring.errors import WorkspaceError

GROUP: Final = "fieldpost.workspaces"
DEFAULT: Final = "default"

Row = dict[str, Any]
"""A row: column to value."""


class Connection(Protocol):
    """One transaction."""

    def execute(self, statement: str, /, **values: object) -> list[Row]:
        """Runs a statement, with parameters as `:name`, and returns its rows."""
        ...

    def execute_many(self, statement: str, rows: Iterable[Mapping[str, object]]) -> None:
        """Runs a statement once for each set of values."""
        ...


class Database(Protocol):
    """The records of a workspace; writers take turns, whatever machine they are on."""

    def read(self) -> AbstractContextManager[Connection]:
        """One consistent view."""
        ...

    def write(self) -> AbstractContextManager[Connection]:
        """A transaction that is committed at the end of the block, or leaves all as it was."""
        ...


class Blobs(Protocol):
    """Bytes by digest."""

    def has(self, digest: str) -> bool:
        """Whether the blob is there."""
        ...

    def path(self, digest: str) -> Path:
        """The file that holds it; raises NotFoundError, InvalidNameError."""
        ...

    def read_bytes(self, digest: str) -> bytes:
        """Its bytes, checked; for small ones."""
        ...


class Package(Protocol):
    """What the fleet wants to know of a package."""

    @property
    def digest(self) -> str:
        """Of its manifest."""
        ...

    @property
    def platform(self) -> str:
        """`linux/amd64`, say; `multiple` for an index of several."""
        ...


class Packages(Protocol):
    """The packages that were built."""

    def get(self, ref: str) -> Package:
        """The package that a reference names; raises NotFoundError, InvalidNameError."""
        ...


class Revision(Protocol):
    """What the fleet wants to know of one revision of a deployment."""

    @property
    def number(self) -> int:
        """From 1."""
        ...

    @property
    def package(self) -> str:
        """The digest of its package."""
        ...

    @property
    def settings(self) -> dict[str, str]:
        """What the target was told."""
        ...


class Deployment(Protocol):
    """What the fleet wants to know of a deployment of the workspace."""

    @property
    def name(self) -> str:
        """Its name."""
        ...

    @property
    def desired(self) -> str:
        """`running` or `stopped`: what people wish for."""
        ...

    @property
    def active(self) -> int | None:
        """The number of the revision that answers; None before the first."""
        ...

    @property
    def active_revision(self) -> Revision | None:
        """That revision."""
        ...


class Deployments(Protocol):
    """The deployments of the workspace, on whatever target."""

    def activate(self, name: str, number: int) -> object:
        """Notes that a revision answers."""
        ...

    def fail(self, name: str, number: int, reason: str, detail: str = "") -> object:
        """Notes that a revision failed."""
        ...

    def start(self, name: str) -> object:
        """Notes that a deployment is to run."""
        ...


class Registry(Protocol):
    """Records and bytes."""

    @property
    def database(self) -> Database:
        """The records."""
        ...

    @property
    def blobs(self) -> Blobs:
        """The bytes."""
        ...

    @property
    def packages(self) -> Packages:
        """The packages among the records."""
        ...

    @property
    def deployments(self) -> Deployments:
        """The deployments among the records."""
        ...


class Workspace(Protocol):
    """One team's workspace, opened."""

    @property
    def registry(self) -> Registry:
        """Records and bytes."""
        ...

    @property
    def folder(self) -> Path:
        """A folder of it on this machine."""
        ...

    def close(self) -> None:
        """Closes the database."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


def open_workspace(
    location: str | os.PathLike[str] | None = None, *, kind: str = DEFAULT
) -> Workspace:
    """Opens a workspace.

    Args:
        location: A folder or a `postgresql://` URL; the default one where there is none.
        kind: Which of the installed ones.

    Raises:
        WorkspaceError: None is installed, or it cannot be loaded or opened.
        UsageError: The location is of no kind that a workspace can be at.
    """
    return cast("Workspace", _load(kind)(location))


@cache
def _load(kind: str) -> Any:
    found = [point for point in entry_points(group=GROUP) if point.name == kind]
    if not found:
        raise WorkspaceError(
            f"No workspace of the kind {kind!r} is installed here.",
            hint="Install Fieldpost with 'pip install fieldpost'.",
        )
    try:
        return found[0].load()
    except (ImportError, AttributeError) as error:
        raise WorkspaceError(
            f"The workspace {found[0].value} cannot be loaded: {error}.",
            hint="Install what it needs.",
        ) from error

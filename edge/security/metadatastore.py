"""Where the controller's signed metadata is: a folder, or a table that controllers share."""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Protocol

from edge.security.tables import create_tables
from edge.workspace import Connection, Database
from scoring import durable
from scoring.errors import InUseError

TIMESTAMP: Final = "timestamp.json"
_FORM: Final = re.compile(
    r"timestamp\.json|[1-9][0-9]{0,9}\.(?:root|snapshot|targets)\.json", re.ASCII
)


def is_document(name: str) -> bool:
    """Whether a name that someone asks for may be one of metadata."""
    return _FORM.fullmatch(name) is not None


class MetadataStore(Protocol):
    """Documents by name; all that belong together appear at once."""

    def get(self, name: str) -> bytes | None:
        """A document; None where there is none, or none can be, of that name."""
        ...

    def names(self) -> list[str]:
        """The names of all."""
        ...

    def put(self, documents: Mapping[str, bytes], *, over: bytes | None) -> None:
        """Adds documents, the timestamp last.

        Args:
            documents: Name to content.
            over: The timestamp that they follow; None for the first.

        Raises:
            InUseError: Someone else has published meanwhile: begin again.
            StorageFullError: No space is left.
        """
        ...


class FolderStore:
    """Documents as files: any web server can be the mirror.

    Args:
        folder: Made where it is missing.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, name: str) -> bytes | None:
        """See `MetadataStore`."""
        if not is_document(name):
            return None
        with durable.storage_errors("the signed metadata"):
            try:
                return (self._folder / name).read_bytes()
            except FileNotFoundError:
                return None

    def names(self) -> list[str]:
        """See `MetadataStore`."""
        if not self._folder.is_dir():
            return []
        return sorted(path.name for path in self._folder.iterdir() if is_document(path.name))

    def put(self, documents: Mapping[str, bytes], *, over: bytes | None) -> None:
        """See `MetadataStore`."""
        with durable.storage_errors("the signed metadata"):
            durable.make_folder(self._folder)
        with self._locked():
            if self.get(TIMESTAMP) != over:
                raise _changed()
            for name in sorted(documents, key=lambda name: name == TIMESTAMP):
                durable.write_bytes(self._folder / name, documents[name])

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with durable.storage_errors("the signed metadata"):
            fd = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX)
                yield
            finally:
                os.close(fd)


class TableStore:
    """Documents in the workspace's database.

    Args:
        database: Of the workspace.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        create_tables(database)

    def get(self, name: str) -> bytes | None:
        """See `MetadataStore`."""
        with self._database.read() as connection:
            return _content(connection, name)

    def names(self) -> list[str]:
        """See `MetadataStore`."""
        with self._database.read() as connection:
            rows = connection.execute("SELECT name FROM fleet_metadata ORDER BY name")
        return [str(row["name"]) for row in rows]

    def put(self, documents: Mapping[str, bytes], *, over: bytes | None) -> None:
        """See `MetadataStore`."""
        with self._database.write() as connection:
            if _content(connection, TIMESTAMP) != over:
                raise _changed()
            for name, content in documents.items():
                connection.execute(
                    "INSERT INTO fleet_metadata (name, content) VALUES (:name, :content) "
                    "ON CONFLICT (name) DO UPDATE SET content = excluded.content",
                    name=name,
                    content=content.decode(),
                )


def _content(connection: Connection, name: str) -> bytes | None:
    rows = connection.execute("SELECT content FROM fleet_metadata WHERE name = :name", name=name)
    return str(rows[0]["content"]).encode() if rows else None


def _changed() -> InUseError:
    return InUseError(
        "Someone else has published signed metadata meanwhile.", hint="Run the command again."
    )

"""Environments: named, versioned, found again by their hash."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scoring.errors import InvalidNameError, NotFoundError
from serve.registry import counters, names, provenance
from serve.registry.records import Blob, Environment
from serve.registry.statements import insert, where

if TYPE_CHECKING:
    from serve.registry.blobs import BlobStore
    from serve.registry.connection import Connection, Row
    from serve.registry.database import Database

MAX_HASH = 128

_TABLE = "fieldpost_environments"
_SELECT = "SELECT * FROM fieldpost_environments"
_NEWEST_FIRST = " ORDER BY version DESC, created_at DESC"


class EnvironmentStore:
    """The environments of a workspace."""

    def __init__(self, database: Database, blobs: BlobStore) -> None:
        self._database = database
        self._blobs = blobs

    def register(
        self,
        name: str,
        lock: bytes,
        *,
        hash: str,  # noqa: A002 - the word of the design
        source_kind: str,
        platform: str,
        python: str,
        created_by: str | None = None,
    ) -> Environment:
        """Records a lock as the next version of an environment.

        The same hash under one name is the same version: it is answered, and nothing is changed.

        Args:
            name: The environment's name.
            lock: The lock document.
            hash: The cache key of its layer.
            source_kind: `requirements`, `pyproject`, `uv.lock` or `conda`.
            platform: The platform that it was locked for.
            python: The Python version that it was locked for.
            created_by: The user; the one that runs the process by default.

        Raises:
            InvalidNameError: The name or the hash has not the right form.
            StorageFullError: No space is left; the registry is as it was.
        """
        names.check_name(name, "environment")
        _check_hash(hash)
        with self._blobs.hold():
            blob = self._blobs.put_bytes(lock)
            with self._database.write() as connection:
                found = _read(connection, name=name, hash=hash)
                if found:
                    return found[0]
                row = {
                    "name": name,
                    "version": counters.following(connection, "environment", name),
                    "hash": hash,
                    "lock_digest": blob.digest,
                    "lock_size": blob.size,
                    "source_kind": source_kind,
                    "platform": platform,
                    "python": python,
                    "created_at": provenance.now(),
                    "created_by": created_by or provenance.user(),
                }
                connection.execute(insert(_TABLE, row), **row)
                return _read(connection, name=name, hash=hash)[0]

    def get(self, ref: str) -> Environment:
        """The environment that `NAME`, `NAME:VERSION` or a hash names.

        Raises:
            NotFoundError: There is none.
            InvalidNameError: The reference has not the right form.
        """
        with self._database.read() as connection:
            by_hash = _read(connection, hash=ref) if len(ref) <= MAX_HASH else []
            if by_hash:
                return by_hash[0]
            name, version = names.parse_reference(ref, "environment")
            found = _read(connection, name=name)
        wanted = [each for each in found if version in (None, each.version)]
        if not wanted:
            known = ", ".join(each.ref for each in found[:10])
            raise NotFoundError(
                f"There is no environment {ref!r}.",
                hint=f"There is {known}."
                if known
                else "Register one with 'fieldpost env register NAME FILE'.",
            )
        return wanted[0]

    def list(self, name: str | None = None) -> tuple[Environment, ...]:
        """The versions of one environment or of all: by name, the newest version first."""
        wanted = {} if name is None else {"name": names.check_name(name, "environment")}
        with self._database.read() as connection:
            found = _read(connection, **wanted)
        return tuple(sorted(found, key=lambda each: (each.name, -each.version)))

    def lock(self, environment: Environment) -> bytes:
        """The lock document, checked against its digest."""
        return self._blobs.read_bytes(environment.lock.digest)


def _check_hash(text: str) -> None:
    if not 0 < len(text) <= MAX_HASH or not text.isascii() or not text.isprintable():
        raise InvalidNameError(f"{text[:MAX_HASH]!a} is not a hash of an environment.")


def _read(connection: Connection, **wanted: str) -> list[Environment]:
    """The environments whose columns have these values, the newest first."""
    conditions = where(f"{column} = :{column}" for column in wanted)
    rows = connection.execute(_SELECT + conditions + _NEWEST_FIRST, **wanted)
    return [_record(row) for row in rows]


def _record(row: Row) -> Environment:
    return Environment(
        name=row["name"],
        version=row["version"],
        hash=row["hash"],
        lock=Blob(digest=row["lock_digest"], size=row["lock_size"]),
        source_kind=row["source_kind"],
        platform=row["platform"],
        python=row["python"],
        created_at=row["created_at"],
        created_by=row["created_by"],
    )

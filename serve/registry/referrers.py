"""What is attached to packages: signatures, SBOMs, provenance.

Each is an OCI manifest whose subject is the package, as a registry's referrers are. It lives as
long as its package: deleting the package deletes what is attached to it.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from scoring.errors import AlreadyExistsError, NotFoundError
from serve.registry import counters, provenance
from serve.registry.records import Blob, Freed, Referrer
from serve.registry.statements import insert, where

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from serve.registry.blobs import BlobStore
    from serve.registry.collector import Collector
    from serve.registry.connection import Connection, Row
    from serve.registry.database import Database

_TABLE = "fieldpost_referrers"
_BLOBS = "fieldpost_referrer_blobs"
_SELECT = "SELECT * FROM fieldpost_referrers"
_OLDEST_FIRST = " ORDER BY added"
_SELECT_BLOBS = """
    SELECT b.* FROM fieldpost_referrer_blobs b JOIN fieldpost_referrers r ON r.digest = b.referrer
    WHERE r.subject = :subject ORDER BY b.position
"""
_THE_PACKAGE = "SELECT digest FROM fieldpost_packages WHERE digest = :subject"
_SUBJECT_OF = "SELECT subject FROM fieldpost_referrers WHERE digest = :digest"
_DELETE = "DELETE FROM fieldpost_referrers WHERE digest = :digest"


class ReferrerStore:
    """What is attached to the packages of a workspace."""

    def __init__(self, database: Database, blobs: BlobStore, collector: Collector) -> None:
        self._database = database
        self._blobs = blobs
        self._collector = collector

    def attach(
        self, manifest: bytes, blobs: Sequence[bytes], *, subject: str, artifact_type: str
    ) -> Referrer:
        """Stores a manifest with its blobs and records it; attached already, it stays as it is.

        Args:
            manifest: The OCI manifest; its subject is the package.
            blobs: Config and layers, in the manifest's order.
            subject: The package's digest.
            artifact_type: The manifest's artifact type.

        Raises:
            NotFoundError: There is no such package.
            AlreadyExistsError: The manifest is attached to another package.
            StorageFullError: No space is left; the registry is as it was.
        """
        with self._blobs.hold():
            with self._blobs.batch() as batch:
                stored = batch.put_bytes(manifest)
                parts = [batch.put_bytes(blob) for blob in blobs]
            row = {
                "digest": stored.digest,
                "subject": subject,
                "artifact_type": artifact_type,
                "size": stored.size + sum(part.size for part in parts),
                "created_at": provenance.now(),
                "created_by": provenance.user(),
            }
            with self._database.write() as connection:
                return self._insert(connection, row, parts)

    def _insert(
        self, connection: Connection, row: dict[str, object], parts: Sequence[Blob]
    ) -> Referrer:
        subject = str(row["subject"])
        if not connection.execute(_THE_PACKAGE, subject=subject):
            raise NotFoundError(
                f"There is no package {subject} to attach anything to.",
                hint="'fieldpost package list' shows those that there are.",
            )
        attached = connection.execute(_SUBJECT_OF, digest=row["digest"])
        if attached and attached[0]["subject"] != subject:
            raise AlreadyExistsError(
                f"{row['digest']} is attached to {attached[0]['subject']} already.",
                hint="A manifest names one subject; attach it to that one.",
            )
        if attached:
            return next(e for e in _read(connection, subject) if e.digest == row["digest"])
        added = counters.following(connection, "referrer")
        connection.execute(insert(_TABLE, [*row, "added"]), **row, added=added)
        listed = [
            {
                "referrer": row["digest"],
                "position": number,
                "digest": part.digest,
                "size": part.size,
            }
            for number, part in enumerate(parts)
        ]
        connection.execute_many(insert(_BLOBS, listed[0]), listed)
        return next(each for each in _read(connection, subject) if each.digest == row["digest"])

    def list(self, subject: str, artifact_type: str | None = None) -> tuple[Referrer, ...]:
        """What is attached to a package, of one kind or of all, in the order of attaching."""
        with self._database.read() as connection:
            return tuple(_read(connection, subject, artifact_type))

    def manifest(self, referrer: Referrer) -> bytes:
        """The manifest's bytes, checked against its digest."""
        return self._blobs.read_bytes(referrer.digest)

    def remove(self, referrers: Iterable[Referrer]) -> Freed:
        """Takes attachments away, and the bytes that nothing else needs."""
        gone = [*referrers]
        with self._database.write() as connection:
            for each in gone:
                connection.execute(_DELETE, digest=each.digest)
        digests = {each.digest for each in gone} | {b.digest for each in gone for b in each.blobs}
        return self._collector.free(digests)


def _read(connection: Connection, subject: str, artifact_type: str | None = None) -> list[Referrer]:
    wanted = {"subject": subject}
    if artifact_type is not None:
        wanted["artifact_type"] = artifact_type
    conditions = where(f"{column} = :{column}" for column in wanted)
    rows = connection.execute(_SELECT + conditions + _OLDEST_FIRST, **wanted)
    blobs: dict[str, list[Blob]] = defaultdict(list)
    for row in connection.execute(_SELECT_BLOBS, subject=subject) if rows else ():
        blobs[row["referrer"]].append(Blob(digest=row["digest"], size=row["size"]))
    return [_record(row, blobs[row["digest"]]) for row in rows]


def _record(row: Row, blobs: list[Blob]) -> Referrer:
    return Referrer(
        digest=row["digest"],
        subject=row["subject"],
        artifact_type=row["artifact_type"],
        blobs=tuple(blobs),
        size=row["size"],
        created_at=row["created_at"],
        created_by=row["created_by"],
    )

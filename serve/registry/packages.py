"""Packages: which manifests there are, what they hold, and how users refer to them."""

from __future__ import annotations

import re
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from scoring import digest as digests
from scoring.errors import InvalidNameError, NotFoundError
from serve.registry import counters, keepers, names, provenance, usage
from serve.registry.records import Blob, Freed, Package
from serve.registry.statements import insert, where

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from serve.registry.blobs import BlobStore
    from serve.registry.collector import Collector
    from serve.registry.connection import Connection, Row
    from serve.registry.database import Database

_PREFIX = re.compile(r"(sha256:)?([0-9a-f]{8,64})", re.ASCII)

_TABLE = "fieldpost_packages"
_BLOBS = "fieldpost_package_blobs"
_AGAIN = " ON CONFLICT (digest) DO UPDATE SET built = excluded.built"
_SELECT = "SELECT * FROM fieldpost_packages"
_NEWEST_FIRST = " ORDER BY built DESC"
_SELECT_BLOBS = "SELECT * FROM fieldpost_package_blobs"
_OF_PACKAGE = " WHERE package = :package"
_IN_ORDER = " ORDER BY position"
_THE_MODEL = """
    SELECT version FROM fieldpost_model_versions WHERE name = :name AND version = :version
"""


class PackageStore:
    """The packages of a workspace."""

    def __init__(self, database: Database, blobs: BlobStore, collector: Collector) -> None:
        self._database = database
        self._blobs = blobs
        self._collector = collector

    def register(
        self,
        manifest: bytes | str,
        blobs: Sequence[Blob],
        *,
        model: str | None,
        model_version: int | None,
        environment: str | None,
        platform: str,
        created_by: str | None = None,
    ) -> Package:
        """Records a package whose blobs are in the store; the same one again becomes the newest.

        A build keeps `BlobStore.hold` from its first blob until this returns.

        Args:
            manifest: The OCI manifest, or the digest under which it is stored.
            blobs: Config and layers, in the manifest's order.
            model: The model's name; None for a script without a model.
            model_version: None for a script without a model.
            environment: Hash of the environment; None for none.
            platform: `linux/amd64` and the like.
            created_by: The user; the one that runs the process by default.

        Raises:
            NotFoundError: A blob is not in the store, or the model version is gone.
            StorageFullError: No space is left; the registry is as it was.
        """
        if model is not None:
            names.check_name(model)
        with self._blobs.hold():
            stored = self._manifest(manifest)
            for blob in blobs:
                self._blobs.path(blob.digest)
            row = {
                "model": model,
                "model_version": model_version,
                "environment": environment,
                "platform": platform,
                "size": stored.size + sum(blob.size for blob in blobs),
                "created_at": provenance.now(),
                "created_by": created_by or provenance.user(),
            }
            newest = self._newest(stored.digest, model, model_version)
            if newest is not None:
                return newest
            with self._database.write() as connection:
                return self._insert(connection, stored.digest, row, blobs)

    def _newest(self, digest: str, model: str | None, version: int | None) -> Package | None:
        """The package where it is recorded, and the newest of all: there is nothing to write."""
        with self._database.read() as connection:
            _require_model(connection, model, version)
            rows = connection.execute(_SELECT + _NEWEST_FIRST + " LIMIT 1")
            if not rows or rows[0]["digest"] != digest:
                return None
            listed = _read_blobs(connection, [digest])[digest]
            return _record(rows[0], listed) if listed else None

    def _manifest(self, manifest: bytes | str) -> Blob:
        if isinstance(manifest, bytes):
            return self._blobs.put_bytes(manifest)
        return Blob(digest=manifest, size=self._blobs.path(manifest).stat().st_size)

    def _insert(
        self, connection: Connection, digest: str, row: dict[str, Any], blobs: Sequence[Blob]
    ) -> Package:
        _require_model(connection, row["model"], row["model_version"])
        values = {"digest": digest, "built": counters.following(connection, "package"), **row}
        connection.execute(insert(_TABLE, values) + _AGAIN, **values)
        if blobs and not _read_blobs(connection, [digest])[digest]:
            listed = [
                {"package": digest, "position": position, "digest": blob.digest, "size": blob.size}
                for position, blob in enumerate(blobs)
            ]
            connection.execute_many(insert(_BLOBS, listed[0]), listed)
        return _read(connection, {"digest": digest})[0]

    def get(self, ref: str) -> Package:
        """The package that a reference names.

        Args:
            ref: A digest, at least 8 hexadecimal digits of one, `iris:1` (the newest package of
                that model version) or `iris` (the newest of that model).

        Raises:
            NotFoundError: There is none.
            InvalidNameError: The reference has not the right form, or several packages begin so.
        """
        with self._database.read() as connection:
            if not ref.startswith("sha256:"):
                found = _of_model(connection, ref)
                if found:
                    return found[0]
            return _by_prefix(connection, ref)

    def list(self, model: str | None = None) -> tuple[Package, ...]:
        """The packages of one model or of all, the newest first."""
        wanted = {} if model is None else {"model": names.check_name(model)}
        with self._database.read() as connection:
            return tuple(_read(connection, wanted))

    def manifest(self, package: Package | str) -> bytes:
        """The package's manifest, checked against its digest."""
        digest = package if isinstance(package, str) else package.digest
        return self._blobs.read_bytes(digest)

    def delete(self, ref: str) -> Freed:
        """Deletes a package that no deployment has, and the bytes that nothing else needs.

        Raises:
            NotFoundError: There is no such package.
            InUseError: A deployment has it in one of its revisions.
        """
        digest = self.get(ref).digest
        with self._database.write() as connection:
            kept = keepers.kept(self._database, connection)
            usage.require_package_unused(connection, digest, kept)
            blobs = usage.drop_packages(connection, [digest])
        freed = self._collector.free(blobs)
        return Freed(blobs=freed.blobs, size=freed.size, packages=(digest,))


def _require_model(connection: Connection, model: str | None, version: int | None) -> None:
    if version is None:
        return
    if not connection.execute(_THE_MODEL, name=model, version=version):
        raise NotFoundError(
            f"The model version {model}:{version} has been deleted.",
            hint="Build from another version: 'fieldpost model list'.",
        )


def _of_model(connection: Connection, ref: str) -> list[Package]:
    if not names.is_reference(ref):
        return []
    model, version = names.parse_reference(ref)
    wanted: dict[str, object] = {"model": model}
    if version is not None:
        wanted["model_version"] = version
    return _read(connection, wanted)


def _by_prefix(connection: Connection, ref: str) -> Package:
    match = _PREFIX.fullmatch(ref)
    if match is None:
        raise _no_package(ref)
    start = f"{digests.ALGORITHM}:{match.group(2)}"
    found = _read(connection, {"digest": f"{start}%"}, comparison="LIKE")
    if not found:
        raise _no_package(ref)
    if len(found) > 1:
        raise InvalidNameError(
            f"Several packages begin with {ref}.",
            hint=f"Write more digits: {', '.join(each.digest for each in found[:4])}.",
        )
    return found[0]


def _no_package(ref: str) -> NotFoundError | InvalidNameError:
    if not names.is_reference(ref) and not _PREFIX.fullmatch(ref):
        return InvalidNameError(
            f"{ref[:200]!a} is not a reference to a package.",
            hint="Write NAME, NAME:VERSION, a digest, or at least 8 hexadecimal digits of one.",
        )
    return NotFoundError(
        f"There is no package {ref!r}.",
        hint="'fieldpost package list' shows those that there are; build one with "
        "'fieldpost package build NAME:VERSION'.",
    )


def _read(
    connection: Connection, wanted: Mapping[str, object], comparison: str = "="
) -> list[Package]:
    """The packages whose columns compare so with these values, the newest first."""
    conditions = where(f"{column} {comparison} :{column}" for column in wanted)
    found = connection.execute(_SELECT + conditions + _NEWEST_FIRST, **wanted)
    blobs = _read_blobs(connection, [row["digest"] for row in found])
    return [_record(row, blobs[row["digest"]]) for row in found]


def _read_blobs(connection: Connection, packages: Sequence[str]) -> dict[str, list[Blob]]:
    blobs: dict[str, list[Blob]] = defaultdict(list)
    if not packages:
        return blobs
    # One package is asked for by name; the many of a list come all at once.
    condition = _OF_PACKAGE if len(packages) == 1 else ""
    for row in connection.execute(_SELECT_BLOBS + condition + _IN_ORDER, package=packages[0]):
        blobs[row["package"]].append(Blob(digest=row["digest"], size=row["size"]))
    return blobs


def _record(row: Row, blobs: list[Blob]) -> Package:
    return Package(
        digest=row["digest"],
        model=row["model"],
        model_version=row["model_version"],
        environment=row["environment"],
        platform=row["platform"],
        blobs=tuple(blobs),
        size=row["size"],
        created_at=row["created_at"],
        created_by=row["created_by"],
    )

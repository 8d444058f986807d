"""Model versions: register, find, tag, compare, download, delete."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scoring.errors import FieldpostError, NotFoundError
from serve.registry import counters, files, keepers, names, provenance, usage
from serve.registry import model_rows as rows
from serve.registry.diff import compare
from serve.registry.download import write_folder
from serve.registry.files import SourceFile
from serve.registry.records import Blob, FileRecord, Freed, ModelDiff, ModelVersion
from serve.registry.statements import insert

if TYPE_CHECKING:
    import builtins

    from serve.registry.blobs import BlobStore
    from serve.registry.collector import Collector
    from serve.registry.database import Database

Files = Mapping[str, Path | SourceFile]
Document = Mapping[str, Any] | bytes
Prepared = Document | Callable[[], Document]

__all__ = ["ModelStore", "ModelVersion"]

_VERSIONS, _FILES = "fieldpost_model_versions", "fieldpost_model_files"
_DOCUMENT = """
    SELECT document FROM fieldpost_model_versions WHERE name = :name AND version = :version
"""
_DELETE = "DELETE FROM fieldpost_model_versions WHERE name = :name AND version = :version"
_DELETE_TAG = """
    DELETE FROM fieldpost_model_tags WHERE name = :name AND version = :version AND key = :key
"""

_log = logging.getLogger(__name__)


class ModelStore:
    """The model versions of a workspace."""

    def __init__(self, database: Database, blobs: BlobStore, collector: Collector) -> None:
        self._database = database
        self._blobs = blobs
        self._collector = collector

    def register(
        self,
        name: str,
        source: Path | Files,
        *,
        prepared: Prepared,
        compiled: Path | None = None,
        tags: Mapping[str, str] | None = None,
        description: str = "",
        metrics: Mapping[str, Any] | None = None,
        created_by: str | None = None,
    ) -> ModelVersion:
        """Stores files and records them as the next version of a model.

        Args:
            name: The model's name.
            source: A file, a folder, or files by relative path: a path that ends in `/` is a
                folder without files. What `files.collect` answered earlier is checked to be
                unchanged since.
            prepared: What is known of the model, `scoring.prepare.Prepared` as JSON or a mapping;
                or a call that says it, made when the bytes are stored.
            compiled: The compiled form, where there is one.
            tags: Key to value.
            description: Free text.
            metrics: A JSON object.
            created_by: The user; the one that runs the process by default.

        Raises:
            InvalidNameError: The name, a tag or a path has not the right form.
            UsageError: There are no files, or `metrics` is no JSON.
            ModelFileError: A file is missing, irregular, or changes while it is read.
            StorageFullError: No space is left; the registry is as it was.
            WorkspaceError: The registry cannot be written; it is as it was.
        """
        row: dict[str, Any] = {
            "name": names.check_name(name),
            "description": names.check_text(description, "The description"),
            "metrics": rows.encode_metrics(metrics or {}),
            "created_by": created_by or provenance.user(),
        }
        tags = names.check_tags(tags or {})
        sources = files.collect(source) if isinstance(source, Path) else dict(source)
        files.check_paths(sources)
        row |= _provenance(sources)
        stored: list[Blob] = []
        try:
            with self._blobs.hold():
                records, form = self._store(sources, compiled, stored)
                document = prepared() if callable(prepared) else prepared
                row |= rows.document_columns(document, sources)
                return self._insert(row, records, form, tags)
        except BaseException:
            self._free(stored)
            raise

    def _store(
        self, sources: Files, compiled: Path | None, stored: list[Blob]
    ) -> tuple[list[FileRecord], Blob | None]:
        records = []
        with self._blobs.batch() as batch:
            for path, source in sorted(sources.items()):
                if path.endswith("/"):
                    records.append(FileRecord(path=path, digest="", size=0))
                    continue
                stored.append(blob := batch.put_file(source))
                records.append(FileRecord(path=path, digest=blob.digest, size=blob.size))
            if compiled is None:
                return records, None
            stored.append(form := batch.put_file(compiled))
        return records, form

    def _insert(
        self,
        row: dict[str, Any],
        records: list[FileRecord],
        compiled: Blob | None,
        tags: Mapping[str, str],
    ) -> ModelVersion:
        row |= {"digest": rows.version_digest(records), "created_at": provenance.now()}
        if compiled is not None:
            row |= {"compiled_digest": compiled.digest, "compiled_size": compiled.size}
        name = row["name"]
        with self._database.write() as connection:
            version = counters.following(connection, "model", name)
            key = {"name": name, "version": version}
            row |= key
            connection.execute(insert(_VERSIONS, row), **row)
            listed = [key | rows.file_row(each) for each in records]
            connection.execute_many(insert(_FILES, listed[0]), listed)
            rows.insert_tags(connection, key, tags)
            return rows.read_one(connection, names.Reference(name, version))

    def get(self, ref: str) -> ModelVersion:
        """The version that `iris`, `iris:3` or `iris:latest` names.

        Raises:
            NotFoundError: There is none; the message says which there are.
            InvalidNameError: The reference has not the right form.
        """
        reference = names.parse_reference(ref)
        with self._database.read() as connection:
            return rows.read_one(connection, reference)

    def document(self, ref: str) -> bytes:
        """The JSON that was given as `prepared`; raises like `get`."""
        version = self.get(ref)
        with self._database.read() as connection:
            found = connection.execute(_DOCUMENT, name=version.name, version=version.version)
        if not found:
            raise NotFoundError(f"{version.ref} has been deleted meanwhile.")
        return str(found[0]["document"]).encode()

    def list(
        self, name: str | None = None, *, tags: Mapping[str, str | None] | None = None
    ) -> tuple[ModelVersion, ...]:
        """The versions of one model or of all: by name, the newest version first.

        Args:
            name: A model's name; None for all.
            tags: Only versions with all of these tags; None as a value stands for any.
        """
        conditions = [] if name is None else [rows.is_named(names.check_name(name))]
        conditions += rows.have_tags(tags or {})
        with self._database.read() as connection:
            found = rows.read_versions(connection, conditions)
        return tuple(sorted(found, key=lambda each: (each.name, -each.version)))

    def tag(
        self,
        ref: str,
        set: Mapping[str, str] | None = None,  # noqa: A002 - as users call it
        remove: Iterable[str] = (),
    ) -> ModelVersion:
        """Sets and removes tags of a version; removing one that is not there does nothing.

        Raises:
            NotFoundError: There is no such version.
            InvalidNameError: A tag has not the right form.
        """
        changes, removed = names.check_tags(set or {}), [*remove]
        names.check_tag_changes(changes, removed)
        reference = names.parse_reference(ref)
        with self._database.write() as connection:
            found = rows.read_one(connection, reference)
            key = {"name": found.name, "version": found.version}
            gone = [key | {"key": tag} for tag in (*changes, *removed)]
            connection.execute_many(_DELETE_TAG, gone)
            rows.insert_tags(connection, key, changes)
            return rows.read_one(connection, names.Reference(found.name, found.version))

    def diff(self, before: str, after: str) -> ModelDiff:
        """What differs between two versions; raises like `get`."""
        return compare(self.get(before), self.get(after))

    def download(self, ref: str, dest: Path, *, replace: bool = False) -> ModelVersion:
        """Writes a version's files into a new folder, every digest checked.

        The folder appears whole or not at all.

        Args:
            ref: A version.
            dest: The folder; it must not exist.
            replace: Replace whatever is at `dest`.

        Raises:
            NotFoundError: There is no such version, or a blob is missing.
            AlreadyExistsError: `dest` exists.
            DigestMismatchError: A blob is damaged; nothing is left at `dest`.
            StorageFullError: No space is left; nothing is left at `dest`.
        """
        with self._blobs.hold():
            version = self.get(ref)
            write_folder(self._blobs, version, dest, replace=replace)
        return version

    def used_by(self, version: ModelVersion) -> builtins.list[str]:
        """The deployments that keep the version from being deleted."""
        with self._database.read() as connection:
            return usage.users_of_model(connection, version.name, version.version)

    def delete(self, ref: str) -> Freed:
        """Deletes a version, the packages of it that no deployment has, and bytes no one needs.

        Raises:
            NotFoundError: There is no such version.
            InUseError: A deployment uses it; the message names the deployments.
        """
        reference = names.parse_reference(ref)
        with self._database.write() as connection:
            version = rows.read_one(connection, reference)
            kept = keepers.kept(self._database, connection)
            usage.require_unused(connection, version, kept)
            packages, blobs = usage.drop_packages_of(connection, version, kept)
            blobs += [file.digest for file in version.files]
            blobs += [version.compiled.digest] if version.compiled else []
            connection.execute(_DELETE, name=version.name, version=version.version)
        freed = self._collector.free(blobs)
        return Freed(blobs=freed.blobs, size=freed.size, packages=tuple(packages))

    def _free(self, stored: Sequence[Blob]) -> None:
        """Gives back what a failed registration stored: a full disk must not stay full of it."""
        try:
            self._collector.free((blob.digest for blob in stored), patience_s=1.0)
        except FieldpostError as error:
            _log.warning("bytes of a failed registration are left to a later sweep: %s", error)


def _provenance(sources: Files) -> dict[str, Any]:
    first = next(iter(sources.values()))
    git = provenance.git_source(first.path if isinstance(first, SourceFile) else first)
    return {"source_commit": git.commit, "source_dirty": git.dirty}

"""Frees blobs that no record references, safely beside commands that store the same bytes."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from serve.registry import keepers, usage
from serve.registry.records import Freed

if TYPE_CHECKING:
    from collections.abc import Iterable

    from serve.registry.blobs import BlobStore
    from serve.registry.connection import Connection
    from serve.registry.database import Database

_REFERENCED = """
    SELECT digest FROM fieldpost_model_files WHERE digest IS NOT NULL
    UNION SELECT compiled_digest FROM fieldpost_model_versions WHERE compiled_digest IS NOT NULL
    UNION SELECT lock_digest FROM fieldpost_environments
    UNION SELECT digest FROM fieldpost_packages
    UNION SELECT digest FROM fieldpost_package_blobs
    UNION SELECT digest FROM fieldpost_referrers
    UNION SELECT digest FROM fieldpost_referrer_blobs
"""
_log = logging.getLogger(__name__)


class Collector:
    """Removes unreferenced blobs.

    Whoever stores bytes holds the store until a record references them; so while the store is
    locked for sweeping, what no record references is needed by nobody.
    """

    def __init__(self, database: Database, blobs: BlobStore) -> None:
        self._database = database
        self._blobs = blobs

    def free(self, candidates: Iterable[str], *, patience_s: float = 5.0) -> Freed:
        """Removes those of the blobs that nothing references (any more).

        Where a writer keeps the store for longer than the patience, nothing is removed: a later
        `collect` does it.
        """
        wanted = set(candidates)
        if not wanted:
            return Freed()
        with self._blobs.sweeping(patience_s) as locked:
            if not locked:
                _log.info("the store is in use; %d blobs are left to the next sweep", len(wanted))
                return Freed()
            return self._delete(wanted)

    def collect(self, *, patience_s: float = 60.0) -> Freed:
        """Removes every unreferenced blob, what killed writers left, and packages without a use.

        A package is without a use when its model version is deleted and no deployment has it.
        """
        with self._blobs.sweeping(patience_s) as locked:
            if not locked:
                _log.warning("the store is in use; nothing was removed")
                return Freed()
            leftovers = self._blobs.remove_leftovers()
            with self._database.write() as connection:
                kept = keepers.kept(self._database, connection)
                packages = usage.drop_orphaned_packages(connection, kept)
            freed = self._delete(set(self._blobs.digests()))
        return Freed(
            blobs=freed.blobs + leftovers, size=freed.size, packages=tuple(sorted(packages))
        )

    def preview(self) -> Freed:
        """What `collect` would remove of unreferenced blobs; nothing is locked or changed."""
        with self._database.read() as connection:
            unused = set(self._blobs.digests()) - referenced(connection)
        sizes = [self._blobs.path(digest).stat().st_size for digest in unused]
        return Freed(blobs=len(sizes), size=sum(sizes))

    def _delete(self, candidates: set[str]) -> Freed:
        with self._database.read() as connection:
            unused = sorted(candidates - referenced(connection))
        sizes = [self._blobs.delete(digest) for digest in unused]
        removed = [size for size in sizes if size is not None]
        return Freed(blobs=len(removed), size=sum(removed))


def referenced(connection: Connection) -> set[str]:
    """The digests that any record references."""
    return {row["digest"] for row in connection.execute(_REFERENCED)}

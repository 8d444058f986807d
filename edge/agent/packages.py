"""The packages on a device: their blobs, and what is unpacked of them.

STATE/blobs/    see `blobs`
STATE/unpacked/ see `scoring.packages.unpack`
"""

from __future__ import annotations

import logging
import shutil
import threading
from collections.abc import Collection
from pathlib import Path
from typing import BinaryIO, cast

from edge.agent import circuits, containers, fetch, layers
from edge.agent.blobs import DeviceBlobs
from edge.agent.transfer import Wishes
from edge.protocol.messages import Module
from scoring import digest as digests
from scoring.errors import DigestMismatchError, FieldpostError, NotFoundError
from scoring.packages.reading import PackageLayer
from scoring.packages.unpack import is_unpacked, root_name, unpack_package
from scoring.packages.workfolder import work_folder

logger = logging.getLogger(__name__)


class Packages:
    """What is here of packages.

    Args:
        folder: Where; made where it is missing.
    """

    def __init__(self, folder: Path) -> None:
        self.blobs = DeviceBlobs(folder)
        self._cache = folder / "unpacked"
        self._unpacking = threading.Lock()  # one at a time: memory and disk of a device are small

    def fetch(self, run: Module, wishes: Wishes, bases: Collection[str]) -> fetch.Fetched:
        """Gets what is missing to run a package; raises like `fetch.fetch`."""
        package = run.package
        return fetch.fetch(
            package,
            self.blobs,
            wishes,
            bases=[base for base in bases if base != package],
            unpacked=lambda diff_id: is_unpacked(diff_id, self._cache),
            only=circuits.layers_of(run),
        )

    def manifest_bytes(self, package: str) -> int:
        """How long the manifest is; raises NotFoundError where it is not here."""
        return len(self.blobs.read_bytes(package))

    def root(self, run: Module) -> Path:
        """Where what is needed of a package to run it is unpacked; unpacks what is not.

        Raises:
            NotFoundError: A blob of it is not here.
            DigestMismatchError: A blob was damaged, and is removed.
            PackagingError, UnsafeArchiveError: It is no package that may be unpacked.
            StorageFullError: There is no room.
        """
        try:
            with self._unpacking:
                only = circuits.layers_of(run)
                return unpack_package(
                    fetch.read(run.package, self.blobs).manifest if only else run.package,
                    self.blobs,
                    self._cache,
                    raw=self._raw,
                    only=only,
                )
        except DigestMismatchError:
            self.remove_damaged(run.package)
            raise

    def _raw(self, layer: PackageLayer) -> BinaryIO | None:
        if not self.blobs.has(layer.diff_id):
            return None
        # A file of another shape than the library's: it reads, and closes.
        return cast("BinaryIO", layers.Stored(self.blobs.open(layer.diff_id)))

    def remove_damaged(self, package: str) -> None:
        """Removes what is damaged of a package's blobs, so that it is fetched again."""
        try:
            wanted: Collection[str] = fetch.read(package, self.blobs).digests
        except (NotFoundError, DigestMismatchError):
            wanted = (package,)
        for digest in self.blobs.remove_damaged(wanted):
            logger.warning("the blob %s was damaged, and is removed", digest)

    def clean(self, keep: Collection[str], spare: Collection[str]) -> None:
        """Removes all other packages.

        Args:
            keep: Digests of packages that have to stay.
            spare: Digests of packages that may stay.
        """
        stay = {*keep, *spare}
        self.blobs.clean(fetch.keepers(stay, self.blobs))
        with self._unpacking:
            self._clean_unpacked(stay)

    def _clean_unpacked(self, stay: Collection[str]) -> None:
        roots: set[str] = set()
        contents: set[str] = set()
        for package in stay:
            try:
                found = fetch.read(package, self.blobs)
            except FieldpostError:  # which of the layers are its own is not known: all stay
                return
            roots |= {
                root_name(digest, only)
                for digest in found.documents
                for only in ((), circuits.LAYERS)
            }
            contents |= {digests.parse(layer.diff_id) for layer in found.layers}
        self._remove_others(self._cache / "roots", roots)
        self._remove_others(self._cache / containers.BYTE_CODE, roots)
        self._remove_others(self._cache / "layers", contents)
        self._remove_others(self._byte_code() / "layers", contents)
        locks = {*(f"{name}.lock" for name in contents), *(f"root-{name}.lock" for name in roots)}
        self._remove_others(self._cache / "locks", locks)

    def _byte_code(self) -> Path:
        """Where Python keeps the byte code of what is unpacked: below the real path of that."""
        real = self._cache.resolve()
        return self._cache / "pycache" / real.relative_to(real.anchor)

    def _remove_others(self, folder: Path, stay: Collection[str]) -> None:
        if not folder.is_dir():
            return
        others = [path for path in folder.iterdir() if path.name not in stay]
        if others:
            with work_folder(self._cache / "work") as work:
                for number, path in enumerate(others):
                    path.rename(work / str(number))  # at once: a half removed layer has no name
                    shutil.rmtree(work / str(number), ignore_errors=True)

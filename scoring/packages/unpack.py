"""Unpacks packages into a cache that all packages of a machine share.

    CACHE/layers/DIFF_ID/opt/fieldpost/...   each layer once
    CACHE/roots/MANIFEST/{env,runtime,code,model}   links into the layers: a package's root
    CACHE/pycache/   byte code, which layers do not hold (see `scoring.boot`)

A folder gets its final name when it is complete and on the disk, so that one that has its name is
whole. Processes that unpack the same layer wait for each other.
"""

from __future__ import annotations

import ctypes
import os
import shutil
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import msgspec

from scoring import digest as digests
from scoring import durable
from scoring.archive import Limits, unpack_tar_gz
from scoring.bundle import IMAGE_ROOT
from scoring.errors import NotFoundError, PackagingError, StorageFullError
from scoring.packages import platformindex
from scoring.packages.documents import LAYER_ORDER
from scoring.packages.platformindex import this_platform
from scoring.packages.reading import PackageLayer, read_package
from scoring.packages.workfolder import locked, work_folder

if TYPE_CHECKING:
    from scoring.packages.storage import Blobs

_RECORD = "layer.json"
_SPARE_BYTES = 64 << 20


Raw = Callable[[PackageLayer], "BinaryIO | None"]
"""The content of a layer as gzip of any kind, where it is kept in another form than its blob."""


def unpack_package(
    digest: str,
    blobs: Blobs,
    cache_dir: Path,
    *,
    raw: Raw = lambda _: None,
    only: Collection[str] = (),
) -> Path:
    """Unpacks what is not unpacked yet and returns the package's root.

    Args:
        digest: Of the manifest; of a package for several platforms this machine's is taken.
        blobs: The store that holds the package.
        cache_dir: The cache; made where it is missing.
        raw: Asked for each layer before the store is: what it gives is compared by its content
            alone.
        only: The names of the layers that are needed, for a root of its own; none: all.

    Raises:
        NotFoundError: The package, or a blob of it, is not in the store.
        DigestMismatchError: A blob is damaged.
        PackagingError: It is for other platforms than this machine's.
        UnsafeArchiveError: A layer would write where it must not.
        StorageFullError: The disk is full; whatever was there before is as it was.
    """
    package = read_package(platformindex.resolve(digest, blobs, this_platform()), blobs)
    links: dict[str, Path] = {}
    with durable.storage_errors("the cache of unpacked packages"):
        for layer in package.layers:
            if only and layer.name not in only:
                continue
            if layer.name not in LAYER_ORDER or layer.name in links:
                raise PackagingError(f"{digest} has a layer that is no part of a package.")
            folder = _unpack_layer(layer, blobs, cache_dir, raw)
            links[layer.name] = Path("../..", folder.relative_to(cache_dir), IMAGE_ROOT, layer.name)
        (cache_dir / "pycache").mkdir(exist_ok=True)
        links["pycache"] = Path("../../pycache")
        return _make_root(cache_dir / "roots" / root_name(package.digest, only), links)


def root_name(digest: str, only: Collection[str] = ()) -> str:
    """The name of the root of a package, or of some of its layers."""
    return "-".join([digests.parse(digest), *sorted(only)])


def _unpack_layer(layer: PackageLayer, blobs: Blobs, cache_dir: Path, raw: Raw) -> Path:
    folder = cache_dir / "layers" / digests.parse(layer.diff_id)
    if _is_whole(folder):
        return folder
    with locked(cache_dir / "locks" / f"{folder.name}.lock"):
        if not _is_whole(folder):  # another process may have been faster
            _require_space(layer, cache_dir)
            with work_folder(cache_dir / "work") as work:
                _unpack_into(work / "layer", layer, blobs, raw)
                _put_in_place(work / "layer", folder, spare=work / "broken")
    return folder


def _unpack_into(target: Path, layer: PackageLayer, blobs: Blobs, raw: Raw) -> None:
    limits = Limits()
    if layer.unpacked_size:
        # That bounds it better than a ratio would: a model of zeros compresses a thousandfold.
        limits = Limits(max_ratio=0, max_bytes=min(layer.unpacked_size, limits.max_bytes))
    found = raw(layer)
    digest = "" if found else layer.digest
    with found or _open_blob(layer.digest, blobs) as source:
        result = unpack_tar_gz(source, target, limits=limits, digest=digest, diff_id=layer.diff_id)
    (target / _RECORD).write_bytes(msgspec.json.encode({"files": result.files}))


def _open_blob(digest: str, blobs: Blobs) -> BinaryIO:
    if not blobs.has(digest):
        raise NotFoundError(
            f"The blob {digest} is not in the store.",
            hint="Build the package again, or pull it from where it came from.",
        )
    return blobs.path(digest).open("rb")


def _put_in_place(new: Path, final: Path, *, spare: Path) -> None:
    """Gives a synced folder its final name; a broken one that has it is moved away first."""
    _sync_all(new)
    final.parent.mkdir(parents=True, exist_ok=True)
    if final.is_symlink() or final.exists():
        final.rename(spare)
    new.rename(final)
    durable.sync_folder(final.parent)


def _sync_all(folder: Path) -> None:
    """Waits until everything below is on the disk: one call, where fsync needs one per file."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        ctypes.CDLL(None, use_errno=True).syncfs(descriptor)
    except AttributeError:  # no such call on this system
        os.sync()
    finally:
        os.close(descriptor)


def is_unpacked(diff_id: str, cache_dir: Path) -> bool:
    """Whether a layer is in the cache, by the digest of its content."""
    return _is_whole(cache_dir / "layers" / digests.parse(diff_id))


def _is_whole(folder: Path) -> bool:
    """Whether a layer is there with as many files as it was unpacked to."""
    try:
        wanted = int(msgspec.json.decode((folder / _RECORD).read_bytes())["files"])
    except (OSError, ValueError, KeyError, TypeError, msgspec.DecodeError):
        return False
    return sum(len(files) for _, _, files in os.walk(folder)) > wanted


def _require_space(layer: PackageLayer, cache_dir: Path) -> None:
    cache_dir.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(cache_dir).free
    if layer.unpacked_size and free < layer.unpacked_size + _SPARE_BYTES:
        raise StorageFullError(
            f"Unpacking needs {layer.unpacked_size >> 20} MiB, and {free >> 20} MiB are free.",
            hint="Free space on that disk and run the command again.",
            where=str(cache_dir),
        )


def _make_root(root: Path, links: dict[str, Path]) -> Path:
    if _has_links(root, links):
        return root
    with locked(root.parent.parent / "locks" / f"root-{root.name}.lock"):
        if not _has_links(root, links):
            with work_folder(root.parent.parent / "work") as work:
                (work / "root").mkdir()
                for name, target in links.items():
                    (work / "root" / name).symlink_to(target)
                _put_in_place(work / "root", root, spare=work / "broken")
    return root


def _has_links(root: Path, links: dict[str, Path]) -> bool:
    try:
        return all((root / name).readlink() == target for name, target in links.items())
    except OSError:
        return False

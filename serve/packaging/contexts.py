"""Build contexts: a folder with a package's layers and the Dockerfile that puts them together."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from scoring import digest as digests
from scoring import durable
from scoring.errors import AlreadyExistsError, DigestMismatchError, NotFoundError, PackagingError
from scoring.packages.documents import LAYER_ORDER, PREFIX
from scoring.packages.reading import read_package
from serve.packaging.dockerfile import (
    MARK,
    DockerfileBase,
    archive_name,
    dockerfile,
    read_run_config,
)
from serve.packaging.images import facts
from serve.packaging.images.bases import Base, is_local

if TYPE_CHECKING:
    from collections.abc import Callable

    from scoring.packages.reading import Package
    from scoring.packages.storage import Blobs
    from serve.packaging.images.finding import BaseFinder

DOCKERFILE = "Dockerfile"
IGNORE = ".dockerignore"
_BASE_ARCHIVE = archive_name("base")
_IGNORED = "*\n!*.tar.gz\n"
_COPIED_BYTES = 1 << 20
_OURS = frozenset({DOCKERFILE, IGNORE, _BASE_ARCHIVE, *map(archive_name, LAYER_ORDER)})


class Context(msgspec.Struct, frozen=True):
    """A folder that builders take.

    Attributes:
        package: The digest of what is built.
        platform: `linux/amd64`.
        base: The image that it is built on, as the Dockerfile names it.
        folder: Where the Dockerfile and the archives are.
        files: Their names.
        size: Of all of them together, in bytes.
    """

    package: str
    platform: str
    base: str
    folder: Path
    files: tuple[str, ...]
    size: int


def write_context(digest: str, blobs: Blobs, finder: BaseFinder, folder: Path) -> Context:
    """Writes a context that its reader may keep and change.

    Args:
        digest: Of the package.
        blobs: The store that holds it.
        finder: Finds the base.
        folder: Not there yet, empty, or one that was written before and is replaced.

    Raises:
        AlreadyExistsError: Something else is in the folder.
        DigestMismatchError: A layer of the package is damaged.
        PackagingError: The package cannot be written as a Dockerfile on this base.
        StorageFullError: The disk is full; the folder is as it was.
    """
    _require_ours(folder)
    with durable.storage_errors(f"the folder {folder}", f"{folder} is as it was."):
        durable.make_folder(folder.absolute().parent)
        durable.sweep(folder.absolute().parent)
        with durable.TemporaryFolder(folder.absolute().parent) as work:
            context = fill(digest, blobs, finder, work.path, place=_copy)
            _put_in_place(work.path, folder.absolute(), context.files)
    return msgspec.structs.replace(context, folder=folder)


def fill(
    digest: str,
    blobs: Blobs,
    finder: BaseFinder,
    folder: Path,
    *,
    place: Callable[[Path, Path, str], None],
) -> Context:
    """Writes a context into an empty folder.

    Args:
        digest: Of the package.
        blobs: The store that holds it.
        finder: Finds the base.
        folder: Empty.
        place: Puts a blob, by its path and digest, where the second path says.
    """
    package = read_package(digest, blobs)
    chosen, local = _base(package, finder)
    (folder / DOCKERFILE).write_text(_text(package, blobs, chosen), encoding="utf-8")
    (folder / IGNORE).write_text(_IGNORED, encoding="utf-8")
    if local is not None:
        with local.open(local.layers[0]) as source, (folder / chosen.archive).open("xb") as target:
            shutil.copyfileobj(source, target, _COPIED_BYTES)
    for layer in package.layers:
        if not blobs.has(layer.digest):
            raise NotFoundError(
                f"The blob {layer.digest} is not in the store.",
                hint="Build the package again, or pull it from where it came from.",
            )
        place(blobs.path(layer.digest), folder / archive_name(layer.name), layer.digest)
    written = sorted(folder.iterdir())
    return Context(
        package=digest,
        platform=package.platform,
        base=chosen.name or chosen.digest,
        folder=folder,
        files=tuple(path.name for path in written),
        size=sum(path.stat().st_size for path in written),
    )


def render(digest: str, blobs: Blobs, finder: BaseFinder) -> str:
    """The Dockerfile's text alone; raises like `write_context`."""
    package = read_package(digest, blobs)
    return _text(package, blobs, _base(package, finder)[0])


def link(blob: Path, path: Path, digest: str) -> None:
    """Puts a blob into a context that only builders read: a second name, where that is possible."""
    try:
        path.hardlink_to(blob)
    except OSError:
        _copy(blob, path, digest)


def _copy(blob: Path, path: Path, digest: str) -> None:
    with blob.open("rb") as source, path.open("xb") as target:
        pieces = iter(lambda: source.read(_COPIED_BYTES), b"")
        actual = digests.of_chunks(_written(piece, target.write) for piece in pieces)
    if actual != digest:
        raise DigestMismatchError(
            f"The stored blob {digest} is damaged.",
            hint="Remove it and build the package again.",
        )


def _written(piece: bytes, write: Callable[[bytes], object]) -> bytes:
    write(piece)
    return piece


def _text(package: Package, blobs: Blobs, base: DockerfileBase) -> str:
    if any(layer.name not in LAYER_ORDER for layer in package.layers):
        raise PackagingError(f"{package.digest} has a layer that is no part of a package.")
    run = read_run_config(blobs.path(package.config.digest).read_bytes())
    return dockerfile(package, run, base)


def _base(package: Package, finder: BaseFinder) -> tuple[DockerfileBase, Base | None]:
    """The base as a Dockerfile names it; and itself, where it is on this machine."""
    text = finder.wanted(package.platform, package.annotations)
    if text and not is_local(text):
        return DockerfileBase(name=text), None
    base = finder.base(package.platform, package.annotations)
    _require_suitable(base, package)
    if len(base.layers) != 1:
        raise PackagingError(
            f"The base {base.label} has {len(base.layers)} layers, which a Dockerfile cannot "
            "stack.",
            hint="Name it as the builder knows it (NAME:TAG), or give a root filesystem: "
            "'--base rootfs:FILE'.",
        )
    return DockerfileBase(archive=_BASE_ARCHIVE, digest=base.digest), base


def _require_suitable(base: Base, package: Package) -> None:
    python = package.annotations.get(PREFIX + "python", "")
    if base.facts is not None and python:
        facts.require_suitable(
            base.facts, platform=package.platform, python=python, what=f"The base {base.label}"
        )


def _require_ours(folder: Path) -> None:
    """Refuses a folder in which something of a user's would be overwritten."""
    if folder.is_symlink() or folder.exists():
        if not folder.is_dir():
            raise AlreadyExistsError(f"{folder} is no folder.", hint="Choose another one.")
        if any(folder.iterdir()) and not _is_ours(folder):
            raise AlreadyExistsError(
                f"The folder {folder} holds something else.",
                hint="Choose one that is not there yet, or is empty.",
            )


def _is_ours(folder: Path) -> bool:
    try:
        with (folder / DOCKERFILE).open("rb") as file:
            return file.read(len(MARK)) == MARK.encode()
    except OSError:
        return False


def _put_in_place(new: Path, folder: Path, files: tuple[str, ...]) -> None:
    """Gives a written context its final place; in an old one, the Dockerfile comes last."""
    _sync(new)
    if not folder.exists():
        new.chmod(0o755)
        new.rename(folder)
        durable.sync_folder(folder.parent)
        return
    for name in sorted(files, key=lambda name: name == DOCKERFILE):
        (new / name).replace(folder / name)
    for name in _OURS.difference(files):
        (folder / name).unlink(missing_ok=True)
    durable.sync_folder(folder)


def _sync(folder: Path) -> None:
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
    durable.sync_folder(folder)

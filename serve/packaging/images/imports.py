"""Makes layers of archives that have no digests of their own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import msgspec

from scoring import digest as digests
from scoring import durable
from scoring.archive import Limits
from scoring.errors import DigestMismatchError, NotFoundError, PackagingError, UnsafeArchiveError
from serve.packaging.images import documents
from serve.packaging.images.documents import ForeignConfig
from serve.packaging.images.rootfs import DAMAGED, RootArchive, decompressed, require_bounded
from serve.packaging.images.streams import BUFFER_BYTES, read_document
from serve.packaging.images.tarindex import TarIndex
from serve.packaging.layers import Layer, write_archive

if TYPE_CHECKING:
    from collections.abc import Iterator

    from scoring.packages.storage import Blobs
    from serve.packaging.images.facts import Facts

_EPOCH = "1970-01-01T00:00:00Z"


@dataclass(frozen=True)
class Imported:
    """An archive's layers, in the store, and the configuration of the image that they make."""

    layers: list[Layer]
    config: dict[str, object]
    facts: Facts | None = None


class _Entry(msgspec.Struct, frozen=True, rename="pascal"):
    """An image of a Docker archive."""

    config: str
    layers: tuple[str, ...]
    repo_tags: tuple[str, ...] | None = None


def split(kind: str, place: str) -> tuple[Path, str]:
    """Path and image of `FILE` and `FILE:NAME:TAG`."""
    if kind == "rootfs" or Path(place).exists():
        return Path(place), ""
    path, _, name = place.partition(":")
    return Path(path), name


def import_rootfs(path: Path, platform: str, blobs: Blobs) -> Imported:
    """Makes one layer of a root filesystem archive.

    Raises:
        NotFoundError: It cannot be read.
        UnsafeArchiveError: It is damaged, or holds what no base may.
        PackagingError: It is for another platform.
        StorageFullError: The disk is full.
    """
    what = f"The root filesystem {path}"
    with _opened(path) as file, durable.storage_errors("the base's layer"):
        archive = RootArchive(file, what)
        layer = write_archive(_suitable(archive, platform, what), blobs)
    system, _, architecture = platform.partition("/")
    config: dict[str, object] = {
        "architecture": architecture,
        "os": system,
        "created": _EPOCH,
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": [layer.diff_id]},
        "history": [{"created": _EPOCH, "created_by": "a root filesystem archive"}],
    }
    return Imported([layer], config, archive.facts)


def _suitable(archive: RootArchive, platform: str, what: str) -> Iterator[bytes]:
    """The archive; for another platform it ends with an error, so that nothing of it is kept."""
    yield from archive.pieces()
    found = archive.facts.platform
    if found and found != platform:
        raise PackagingError(
            f"{what} is for {found}, and the package for {platform}.",
            hint="Choose one for the package's platform, or export one platform alone "
            "with --platform; '--base linux/amd64=rootfs:A,linux/arm64=rootfs:B' names several.",
        )


def import_docker_archive(path: Path, name: str, platform: str, blobs: Blobs) -> Imported:
    """Takes an image out of an archive that `docker save` wrote.

    Raises:
        NotFoundError: It cannot be read, or has no image of that name.
        UnsafeArchiveError: It is damaged.
        PackagingError: It is no such archive, or for another platform.
        DigestMismatchError: A layer is not the one that the configuration names.
    """
    tar = TarIndex(path)
    entry = _choose(tar, name)
    what = f"The configuration in {path}"
    content = read_document(tar.open(entry.config), what)
    config = documents.decode(content, ForeignConfig, what)
    documents.require_platform(config, platform, f"The image in {path}")
    diff_ids = config.rootfs.diff_ids
    if len(diff_ids) != len(entry.layers):
        raise PackagingError(f"{path}: manifest and configuration name different layers.")
    pairs = zip(entry.layers, diff_ids, strict=True)
    layers = [_import_layer(tar, file, diff_id, blobs) for file, diff_id in pairs]
    document: dict[str, Any] = msgspec.json.decode(content)
    return Imported(layers, document)


def _choose(tar: TarIndex, name: str) -> _Entry:
    if "manifest.json" not in tar.names:
        raise NotFoundError(
            f"{tar.path} is no Docker archive: there is no manifest.json.",
            hint="Write one with 'docker save', or use rootfs: for a root filesystem.",
        )
    what = f"The manifest in {tar.path}"
    entries = documents.decode(
        read_document(tar.open("manifest.json"), what), tuple[_Entry, ...], what
    )
    found = [entry for entry in entries if not name or name in (entry.repo_tags or ())]
    if len(found) != 1:
        tags = sorted(tag for entry in entries for tag in entry.repo_tags or ())
        raise NotFoundError(
            f"{tar.path} has {len(found) or 'no'} image{'s' if len(found) != 1 else ''} "
            + (f"named {name!r}." if name else "in it."),
            hint=f"There are: {', '.join(tags)}" if tags else "Save it again with a name.",
        )
    return found[0]


def _import_layer(tar: TarIndex, file: str, diff_id: str, blobs: Blobs) -> Layer:
    what = f"The layer {file} in {tar.path}"
    digests.parse(diff_id)
    with tar.open(file) as source, durable.storage_errors("the base's layers"):
        layer = write_archive(_pieces(source, tar.size(file), what), blobs)
    if layer.diff_id != diff_id:
        raise DigestMismatchError(
            f"{what} has the digest {layer.diff_id}, and the configuration names {diff_id}.",
            hint="Save the image again.",
        )
    return layer


def _pieces(source: BinaryIO, size: int, what: str) -> Iterator[bytes]:
    stream, out, limits = decompressed(source, what), 0, Limits()
    try:
        while piece := stream.read(BUFFER_BYTES):
            out += len(piece)
            require_bounded(out, size, what, limits)
            yield piece
    except DAMAGED as error:
        raise UnsafeArchiveError(f"{what} is damaged or cut off: {error}.") from error


def _opened(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise NotFoundError(
            f"The archive {path} cannot be read: {error.strerror}.", hint="Check the path."
        ) from error

"""Base images: what a package's layers are put on.

registry/name[:tag][@digest]   a registry's; its layers are read only where somebody needs them
oci:FOLDER[:TAG]               an OCI image layout
oci-archive:FILE[:TAG]         one in an archive
docker-archive:FILE[:NAME:TAG] what `docker save` writes
rootfs:FILE                    a root filesystem: .tar, .tar.gz, .tar.xz, .tar.bz2, .tar.zst
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from scoring.errors import PackagingError, UsageError
from scoring.packages.documents import Descriptor, Manifest
from serve.packaging.images import documents
from serve.packaging.images.documents import ForeignConfig, Index
from serve.packaging.images.layout import (
    TAG,
    ArchiveLayout,
    FolderLayout,
    Source,
    find,
    read_blob,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from serve.packaging.images.basestore import BaseStore
    from serve.packaging.images.facts import Facts

LOCAL_KINDS = ("rootfs", "oci", "oci-archive", "docker-archive")
_NESTED = 3


@dataclass(frozen=True)
class Base:
    """An image that packages are put on.

    Attributes:
        name: A registry's name for it (`docker.io/library/python:3.11-slim`); empty for a base
            from this machine, whose place would make images differ.
        digest: Of its manifest, that of the platform.
        platform: `linux/amd64`.
        config: Its configuration.
        layers: As an OCI manifest names them, the lowest first.
        documents: Its manifest and its configuration.
        source: Where they are.
        label: For messages.
        facts: What is in it; None where its layers were not looked into.
    """

    name: str
    digest: str
    platform: str
    config: ForeignConfig
    layers: tuple[Descriptor, ...]
    documents: tuple[Descriptor, ...] = field(repr=False)
    source: Source = field(repr=False)
    label: str = ""
    facts: Facts | None = None

    def open(self, descriptor: Descriptor) -> BinaryIO:
        """A layer, compared with its digest while it is read; fetched where it is not here."""
        return self.source.open(descriptor.digest, descriptor.size)

    def origins(self, digest: str) -> Sequence[object]:
        """The repositories that hold a layer."""
        return self.source.origins(digest)


def read_base(
    root: Descriptor, source: Source, platform: str, *, name: str = "", label: str = ""
) -> Base:
    """Reads a base's manifest and configuration; its layers are not opened.

    Args:
        root: Its manifest, or the index of several.
        source: Where its blobs are.
        platform: The one to take from an index.
        name: As of `Base`.
        label: For messages.

    Raises:
        PackagingError: It is no image, or none for the platform.
        DigestMismatchError: It is damaged.
    """
    label = label or name
    entry, content = _descend(root, source, platform, label)
    what = f"The manifest of {label}"
    manifest = documents.decode(content, Manifest, what)
    what = f"The configuration of {label}"
    config = documents.decode(read_blob(source, manifest.config, what), ForeignConfig, what)
    documents.require_platform(config, platform, f"The base {label}")
    return Base(
        name=name,
        digest=entry.digest,
        platform=platform,
        config=config,
        layers=documents.layers_of(manifest, config, f"The base {label}"),
        documents=(entry, manifest.config),
        source=source,
        label=label,
    )


def _descend(
    root: Descriptor, source: Source, platform: str, label: str
) -> tuple[Descriptor, bytes]:
    """The manifest for a platform, below as many indexes as anybody nests."""
    what = f"The manifest of {label}"
    for _ in range(_NESTED):
        content = read_blob(source, root, what)
        kind = documents.media_type(content, root.media_type, what)
        if kind in documents.MANIFEST_TYPES:
            return root, content
        if kind not in documents.INDEX_TYPES:
            raise PackagingError(f"The base {label} is no image but {kind[:200]!r}.")
        manifests = documents.decode(content, Index, what).manifests
        root = documents.choose(manifests, platform, f"The base {label}")
    raise PackagingError(f"The base {label} is an index of indexes of indexes.")


def is_local(text: str) -> bool:
    """Whether a base is named by where it is on this machine."""
    return text.partition(":")[0] in LOCAL_KINDS and ":" in text


def open_local(text: str, platform: str, store: BaseStore) -> Base:
    """Opens a base from this machine, and looks into it.

    Args:
        text: `oci:…`, `oci-archive:…`, `docker-archive:…` or `rootfs:…`.
        platform: Of the package.
        store: Keeps what was made of archives, and what was learned.

    Raises:
        NotFoundError: There is no such file, or no image of that name in it.
        UnsafeArchiveError: The archive is damaged, or holds what a base must not.
        PackagingError: It is no image, or one for another platform.
        DigestMismatchError: Its bytes are not those that its digests name.
    """
    kind, _, place = text.partition(":")
    if kind not in LOCAL_KINDS or not place:
        raise UsageError(
            f"{text!r} names no base.",
            hint="Write oci:FOLDER, oci-archive:FILE, docker-archive:FILE or rootfs:FILE.",
        )
    if kind in ("rootfs", "docker-archive"):
        return store.imported(kind, place, platform)
    path, wanted = split_place(place)
    layout = FolderLayout(path) if kind == "oci" else ArchiveLayout(path)
    base = read_base(find(layout, wanted), layout, platform, label=text)
    return store.with_facts(base)


def split_place(place: str) -> tuple[Path, str]:
    """Path and tag or digest of `FOLDER[:TAG]` and `FOLDER@DIGEST`."""
    whole = Path(place)
    if whole.exists():
        return whole, ""
    path, separator, digest = place.partition("@sha256:")
    if separator:
        return Path(path), f"sha256:{digest}"
    path, separator, tag = place.rpartition(":")
    if separator and path and TAG.fullmatch(tag):
        return Path(path), tag
    return whole, ""

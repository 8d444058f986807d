"""Takes packages out of images in layouts: the same package, by its digest, and not its base."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scoring import digest as digests
from scoring.errors import DigestMismatchError, NotFoundError, PackagingError, UsageError
from scoring.packages.documents import PACKAGE, Descriptor, Index, Manifest
from scoring.packages.platformindex import for_platform, package_manifests
from scoring.packages.reading import read_package
from serve.packaging.images.bases import split_place
from serve.packaging.images.documents import INDEX_TYPES, decode, media_type
from serve.packaging.images.layout import ArchiveLayout, FolderLayout, Layout, find, read_blob
from serve.packaging.images.restoring import restore
from serve.packaging.images.streams import BUFFER_BYTES

if TYPE_CHECKING:
    from scoring.packages.storage import Blobs

KINDS = ("oci", "oci-archive")


def open_layout(place: str) -> tuple[Layout, Descriptor]:
    """The layout that `oci:DIR[:TAG]` or `oci-archive:FILE[:TAG]` names, and the image in it.

    Raises:
        UsageError: The text has another form.
        NotFoundError: There is no layout, or no image of that tag in it.
    """
    kind, _, rest = place.partition(":")
    if kind not in KINDS or not rest:
        raise UsageError(
            f"{place!r} is no place to read a package from.",
            hint="Write oci:DIR[:TAG] or oci-archive:FILE[:TAG].",
        )
    path, wanted = split_place(rest)
    layout = FolderLayout(path) if kind == "oci" else ArchiveLayout(path)
    return layout, find(layout, wanted)


def take_package(layout: Layout, root: Descriptor, blobs: Blobs, platform: str | None) -> str:
    """Copies a package's documents and layers into a store, checked; returns its digest.

    Args:
        layout: Where its image is.
        root: The image's manifest or index.
        blobs: The store.
        platform: Of a package of several platforms only this one; None for all of them.

    Raises:
        PackagingError: The image holds no package, or none for the platform.
        NotFoundError: The layout lacks a part of it.
        DigestMismatchError: A blob is damaged.
    """
    digest = _package_of(layout, root)
    if not (blobs.has(digest) or layout.has(digest)):
        _restore(layout, root, blobs)
    _copy_document(layout, digest, blobs)
    index = package_manifests(digest, blobs)
    if index is None:
        _take_one(layout, digest, blobs)
        return digest
    wanted = [for_platform(index, platform)] if platform else [e.digest for e in index.manifests]
    for each in wanted:
        _copy_document(layout, each, blobs)
        _take_one(layout, each, blobs)
    return wanted[0] if platform else digest


def _package_of(layout: Layout, root: Descriptor) -> str:
    """The digest that the image says it holds; of a layout of a package alone its own."""
    what = f"The manifest in {layout.name}"
    content = read_blob(layout, root, what)
    if media_type(content, root.media_type, what) in INDEX_TYPES:
        annotations = decode(content, Index, what).annotations
    else:
        annotations = decode(content, Manifest, what).annotations
    digest = annotations.get(PACKAGE, "")
    if not digests.is_digest(digest):
        raise PackagingError(
            f"The image in {layout.name} was not made of a Fieldpost package.",
            hint="Export one with 'fieldpost package export'.",
        )
    return digest


def _restore(layout: Layout, root: Descriptor, blobs: Blobs) -> None:
    """A copy by another tool lacks the package's own documents; they are made again."""

    def read(descriptor: Descriptor) -> bytes:
        return read_blob(layout, descriptor, f"A document in {layout.name}")

    for content in (restore(read(root), read) or {}).values():
        blobs.put_bytes(content)


def _take_one(layout: Layout, digest: str, blobs: Blobs) -> None:
    manifest = decode(blobs.path(digest).read_bytes(), Manifest, f"The package {digest}")
    for descriptor in (manifest.config, *manifest.layers):
        if not blobs.has(descriptor.digest):
            with layout.open(descriptor.digest, descriptor.size) as source:
                blobs.put_stream(iter(lambda: source.read(BUFFER_BYTES), b""))
    read_package(digest, blobs)


def _copy_document(layout: Layout, digest: str, blobs: Blobs) -> None:
    if blobs.has(digest):
        return
    if not layout.has(digest):
        raise NotFoundError(
            f"{layout.name} holds the image and not the package {digest} itself.",
            hint="A copy by another tool leaves it out, and another release or another base keeps "
            "it from being made again: take what 'fieldpost package export' or a registry has.",
        )
    content = layout.read(digest)
    if digests.of_bytes(content) != digest:
        raise DigestMismatchError(
            f"The blob {digest} in {layout.name} is damaged.", hint="Export the package again."
        )
    blobs.put_bytes(content)

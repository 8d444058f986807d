"""Reads and verifies packages: manifest, configuration, layers."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, TypeVar

import msgspec

from scoring import digest as digests
from scoring.errors import DigestMismatchError, NotFoundError, PackagingError
from scoring.packages.documents import (
    CONFIG_TYPE,
    LAYER_NAME,
    LAYER_TYPE,
    MANIFEST_TYPE,
    UNPACKED_SIZE,
    Descriptor,
    ImageConfig,
    Manifest,
)

if TYPE_CHECKING:
    from pathlib import Path

    from scoring.packages.documents import Index
    from scoring.packages.storage import Blobs

_DOCUMENT_BYTES = 4 << 20
_PIECE_BYTES = 1 << 20
_Document = TypeVar("_Document", Manifest, ImageConfig)


class PackageLayer(msgspec.Struct, frozen=True):
    """A layer as manifest and configuration together name it.

    Attributes:
        name: `env`, `runtime`, `code` or `model`; empty for a layer of someone else.
        digest: Of the compressed bytes.
        size: Of the compressed bytes.
        diff_id: Of the uncompressed archive.
        unpacked_size: Of the uncompressed archive; 0 where the manifest does not say.
    """

    name: str
    digest: str
    size: int
    diff_id: str
    unpacked_size: int = 0


class Package(msgspec.Struct, frozen=True):
    """What a manifest names, read and checked.

    Attributes:
        digest: Of the manifest.
        platform: `linux/amd64`.
        config: Where the image configuration is.
        layers: In their order in the image.
        annotations: The manifest's.
    """

    digest: str
    platform: str
    config: Descriptor
    layers: tuple[PackageLayer, ...]
    annotations: dict[str, str]

    @property
    def blobs(self) -> tuple[str, ...]:
        """The digests of every blob that the package needs, its manifest included."""
        return (self.digest, self.config.digest, *(layer.digest for layer in self.layers))

    @property
    def size(self) -> int:
        """Of configuration and layers together, in bytes."""
        return self.config.size + sum(layer.size for layer in self.layers)


def read_package(digest: str, blobs: Blobs) -> Package:
    """Reads manifest and configuration, and checks their digests; layers are not opened.

    Raises:
        InvalidNameError: `digest` is no digest.
        NotFoundError: A document is not in the store.
        DigestMismatchError: A stored document is damaged.
        PackagingError: The documents are not those of a package.
    """
    manifest = _decode(_read_document(digest, blobs), Manifest, "manifest", digest)
    if manifest.schema_version != 2 or manifest.media_type != MANIFEST_TYPE:  # noqa: PLR2004
        raise PackagingError(f"{digest} is no OCI image manifest.")
    if manifest.config.media_type != CONFIG_TYPE:
        raise PackagingError(f"{digest} has a configuration of another kind.")
    content = _read_document(manifest.config.digest, blobs, size=manifest.config.size)
    config = _decode(content, ImageConfig, "configuration", manifest.config.digest)
    return Package(
        digest=digest,
        platform=f"{config.os}/{config.architecture}",
        config=manifest.config,
        layers=_layers(manifest, config, digest),
        annotations=manifest.annotations,
    )


def read_several(digest: str, index: Index, blobs: Blobs) -> Package:
    """What the packages of an index name together; layers that several have come once.

    Raises:
        NotFoundError: A document is not in the store.
        DigestMismatchError: A stored document is damaged.
    """
    packages = [read_package(entry.digest, blobs) for entry in index.manifests]
    layers = {layer.digest: layer for package in packages for layer in package.layers}
    return Package(
        digest=digest,
        platform=",".join(package.platform for package in packages),
        config=packages[0].config,
        layers=tuple(layers.values()),
        annotations=index.annotations,
    )


def verify_package(digest: str, blobs: Blobs) -> Package:
    """Reads every byte of a package and checks every digest and size.

    Raises:
        NotFoundError: A blob is not in the store.
        DigestMismatchError: A blob is damaged, or a layer is not what the configuration names.
        PackagingError: The documents are not those of a package.
    """
    package = read_package(digest, blobs)
    for layer in package.layers:
        _verify_layer(layer, blobs)
    return package


def _layers(manifest: Manifest, config: ImageConfig, digest: str) -> tuple[PackageLayer, ...]:
    diff_ids = config.rootfs.diff_ids
    if len(manifest.layers) != len(diff_ids):
        raise PackagingError(f"{digest}: manifest and configuration name different layers.")
    return tuple(map(_layer, manifest.layers, diff_ids))


def _layer(descriptor: Descriptor, diff_id: str) -> PackageLayer:
    if descriptor.media_type != LAYER_TYPE:
        raise PackagingError(f"A layer has the unknown media type {descriptor.media_type!r}.")
    digests.parse(descriptor.digest)
    digests.parse(diff_id)
    unpacked = descriptor.annotations.get(UNPACKED_SIZE, "0")
    return PackageLayer(
        name=descriptor.annotations.get(LAYER_NAME, ""),
        digest=descriptor.digest,
        size=descriptor.size,
        diff_id=diff_id,
        unpacked_size=int(unpacked) if unpacked.isascii() and unpacked.isdigit() else 0,
    )


def _read_document(digest: str, blobs: Blobs, *, size: int = 0) -> bytes:
    path = _blob_path(digest, blobs)
    if path.stat().st_size > _DOCUMENT_BYTES:
        raise PackagingError(f"{digest} is too large for a manifest or configuration.")
    content = path.read_bytes()
    if digests.of_bytes(content) != digest or (size and len(content) != size):
        raise _damaged(digest)
    return content


def _decode(content: bytes, kind: type[_Document], what: str, digest: str) -> _Document:
    try:
        return msgspec.json.decode(content, type=kind)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise PackagingError(f"{digest} is no image {what}: {error}.") from error


def _blob_path(digest: str, blobs: Blobs) -> Path:
    digests.parse(digest)
    if not blobs.has(digest):
        raise NotFoundError(
            f"The blob {digest} is not in the store.",
            hint="Build the package again, or pull it from where it came from.",
        )
    return blobs.path(digest)


def _verify_layer(layer: PackageLayer, blobs: Blobs) -> None:
    path = _blob_path(layer.digest, blobs)
    with path.open("rb") as file:
        actual = f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
    if actual != layer.digest or path.stat().st_size != layer.size:
        raise _damaged(layer.digest)
    if _diff_id(path) != layer.diff_id:
        raise DigestMismatchError(f"The layer {layer.digest} does not unpack to {layer.diff_id}.")


def _diff_id(path: Path) -> str:
    import gzip  # noqa: PLC0415 - for whole layers only
    import zlib  # noqa: PLC0415

    try:
        with gzip.open(path, "rb") as file:
            return digests.of_chunks(iter(lambda: file.read(_PIECE_BYTES), b""))
    except (OSError, EOFError, zlib.error) as error:
        raise PackagingError(f"{path.name} is no compressed layer: {error}.") from error


def _damaged(digest: str) -> DigestMismatchError:
    return DigestMismatchError(
        f"The stored blob {digest} is damaged.",
        hint="Remove it and build the package again.",
    )

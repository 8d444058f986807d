"""Manifests, indexes and configurations of images that others made."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from scoring import digest as digests
from scoring.errors import PackagingError
from scoring.packages.documents import (
    INDEX_TYPE,
    LAYER_TYPE,
    MANIFEST_TYPE,
    Descriptor,
    Index,
    Manifest,
    Platform,
    RootFs,
)

DOCKER_MANIFEST_TYPE = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_INDEX_TYPE = "application/vnd.docker.distribution.manifest.list.v2+json"
MANIFEST_TYPES = frozenset({MANIFEST_TYPE, DOCKER_MANIFEST_TYPE})
INDEX_TYPES = frozenset({INDEX_TYPE, DOCKER_INDEX_TYPE})

# What layers are called by Docker and by OCI: the bytes are the same.
_LAYER_TYPES = {
    "application/vnd.docker.image.rootfs.diff.tar.gzip": LAYER_TYPE,
    "application/vnd.docker.image.rootfs.diff.tar": "application/vnd.oci.image.layer.v1.tar",
    **{
        name: name
        for name in (
            LAYER_TYPE,
            "application/vnd.oci.image.layer.v1.tar",
            "application/vnd.oci.image.layer.v1.tar+zstd",
        )
    },
}
# arm64 has one variant, which is written or not.
_VARIANTS = {"arm64": frozenset({"", "v8"})}
_SHOWN = 8

_Document = TypeVar("_Document")


class RunConfig(msgspec.Struct, frozen=True, rename="pascal"):
    """What is passed on of how a container of an image runs."""

    env: tuple[str, ...] | None = None
    labels: dict[str, str] | None = None


class ForeignConfig(msgspec.Struct, frozen=True):
    """An image configuration, as far as composing needs it.

    Attributes:
        architecture: `amd64`.
        os: `linux`.
        rootfs: The digests of the uncompressed layers.
        variant: Of the architecture.
        config: How a container of it runs.
        history: Where its layers came from.
    """

    architecture: str
    os: str
    rootfs: RootFs
    variant: str = ""
    config: RunConfig | None = None
    history: tuple[dict[str, Any], ...] | None = None

    @property
    def platform(self) -> str:
        """`linux/amd64`."""
        return f"{self.os}/{self.architecture}"


def decode(content: bytes, kind: type[_Document], what: str) -> _Document:
    """Reads a JSON document.

    Raises:
        PackagingError: It is another one.
    """
    try:
        return msgspec.json.decode(content, type=kind)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise PackagingError(f"{what} cannot be read: {error}.") from error


class _Typed(msgspec.Struct, rename="camel"):
    media_type: str = ""
    config: Any = None
    manifests: Any = None


def media_type(content: bytes, told: str, what: str) -> str:
    """What a manifest says that it is; else what was told where it was named, else its form."""
    typed = decode(content, _Typed, what)
    form = INDEX_TYPE if typed.manifests else MANIFEST_TYPE if typed.config else ""
    return typed.media_type or told or form  # OCI lets them say nothing, and podman's do not


def choose(manifests: tuple[Descriptor, ...], platform: str, what: str) -> Descriptor:
    """The entry of an index for a platform.

    Raises:
        PackagingError: There is none.
    """
    for entry in manifests:
        if entry.platform is not None and _suits(entry.platform, platform):
            return entry
    offered = sorted({entry.platform.name for entry in manifests if entry.platform})
    raise PackagingError(
        f"{what} has no image for {platform}"
        + (f", only for {', '.join(offered[:_SHOWN])}." if offered else "."),
        hint="Choose a base that exists for the platform, or build the package for another one.",
    )


def _suits(offered: Platform, wanted: str) -> bool:
    allowed = _VARIANTS.get(offered.architecture, frozenset({""}))
    return offered.name == wanted and offered.variant in allowed


def require_platform(config: ForeignConfig, platform: str, what: str) -> None:
    """Raises PackagingError where an image is for another platform."""
    if config.platform != platform:
        raise PackagingError(
            f"{what} is for {config.platform}, and the package for {platform}.",
            hint="Choose a base for the package's platform, or build the package for that of the "
            "base with --platform.",
        )


def layers_of(manifest: Manifest, config: ForeignConfig, what: str) -> tuple[Descriptor, ...]:
    """The layers as an OCI manifest names them.

    Raises:
        PackagingError: There are others in the configuration, or some of an unknown kind.
    """
    if len(manifest.layers) != len(config.rootfs.diff_ids):
        raise PackagingError(f"{what}: its manifest and configuration name different layers.")
    for diff_id in config.rootfs.diff_ids:
        digests.parse(diff_id)
    return tuple(_layer(layer, what) for layer in manifest.layers)


def _layer(layer: Descriptor, what: str) -> Descriptor:
    digests.parse(layer.digest)
    if layer.media_type not in _LAYER_TYPES:
        raise PackagingError(
            f"{what} has a layer of the kind {layer.media_type[:200]!r}, which cannot be passed on."
        )
    return Descriptor(
        media_type=_LAYER_TYPES[layer.media_type], digest=layer.digest, size=layer.size
    )


__all__ = [
    "INDEX_TYPES",
    "MANIFEST_TYPES",
    "ForeignConfig",
    "Index",
    "choose",
    "decode",
    "layers_of",
    "media_type",
    "require_platform",
]

"""The JSON documents of an OCI image, as packages have them."""

from __future__ import annotations

from typing import Literal

import msgspec

MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar+gzip"
INDEX_TYPE = "application/vnd.oci.image.index.v1+json"

PREFIX = "dev.fieldpost."
LAYER_NAME = PREFIX + "layer"
PACKAGE = PREFIX + "package"
UNPACKED_SIZE = PREFIX + "unpacked-size"

LayerName = Literal["env", "runtime", "code", "model"]
LAYER_ORDER: tuple[LayerName, ...] = ("env", "runtime", "code", "model")


class Platform(msgspec.Struct, frozen=True, omit_defaults=True):
    """What an entry of an image index is for."""

    architecture: str
    os: str
    variant: str = ""

    @property
    def name(self) -> str:
        """`linux/amd64`."""
        return f"{self.os}/{self.architecture}"


class Descriptor(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    """An OCI content descriptor; the platform is told in an index only."""

    media_type: str
    digest: str
    size: int
    annotations: dict[str, str] = {}
    platform: Platform | None = None


class Manifest(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    """An OCI image manifest."""

    config: Descriptor
    layers: tuple[Descriptor, ...]
    annotations: dict[str, str] = {}
    media_type: str = ""
    schema_version: int = 0


class Index(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    """An OCI image index: one entry for each platform."""

    manifests: tuple[Descriptor, ...]
    annotations: dict[str, str] = {}
    media_type: str = ""
    schema_version: int = 0


class RootFs(msgspec.Struct, frozen=True):
    """The digests of the uncompressed layers."""

    type: str
    diff_ids: tuple[str, ...]


class ImageConfig(msgspec.Struct, frozen=True):
    """What Fieldpost reads of an OCI image configuration."""

    architecture: str
    os: str
    rootfs: RootFs


def canonical_json(document: object) -> bytes:
    """Sorted keys and no spaces: the same bytes for the same document."""
    return msgspec.json.encode(document, order="sorted")

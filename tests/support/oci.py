"""Small images for tests of registries: documents and blobs in a store."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from serve.distribution.content import Descriptor, StoredContent
from serve.distribution.documents import OCI_INDEX, OCI_MANIFEST
from serve.registry.blobs import BlobStore

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
CONFIG = "application/vnd.oci.image.config.v1+json"


@dataclass(frozen=True)
class SmallImage:
    """An image in a store.

    Attributes:
        root: Its manifest or index.
        layers: Its layers, in order.
        store: What holds it.
    """

    root: Descriptor
    layers: tuple[Descriptor, ...]
    store: BlobStore

    @property
    def content(self) -> StoredContent:
        """As a push takes it."""
        return StoredContent(self.store)


def make_store(folder: Path) -> BlobStore:
    """An empty store."""
    store = BlobStore(folder)
    store.create()
    return store


def put(store: BlobStore, data: bytes, media_type: str) -> Descriptor:
    """Stores bytes and describes them."""
    blob = store.put_bytes(data)
    return Descriptor(media_type, blob.digest, blob.size)


def make_image(
    store: BlobStore,
    layers: Sequence[bytes],
    annotations: dict[str, str] | None = None,
    architecture: str = "amd64",
) -> SmallImage:
    """An image with these layers."""
    stored = [put(store, layer, LAYER) for layer in layers]
    config = {
        "architecture": architecture,
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [each.digest for each in stored]},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": _plain(put(store, json.dumps(config).encode(), CONFIG)),
        "layers": [_plain(each) for each in stored],
        "annotations": annotations or {},
    }
    root = put(store, json.dumps(manifest).encode(), OCI_MANIFEST)
    return SmallImage(root, tuple(stored), store)


def make_index(store: BlobStore, images: dict[str, SmallImage]) -> SmallImage:
    """An index of images by platform."""
    entries = []
    for platform, image in images.items():
        system, _, architecture = platform.partition("/")
        place = {"platform": {"os": system, "architecture": architecture}}
        entries.append(_plain(image.root) | place)
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}
    layers = tuple(layer for image in images.values() for layer in image.layers)
    return SmallImage(put(store, json.dumps(index).encode(), OCI_INDEX), layers, store)


def _plain(descriptor: Descriptor) -> dict[str, object]:
    return {
        "mediaType": descriptor.media_type,
        "digest": descriptor.digest,
        "size": descriptor.size,
    }

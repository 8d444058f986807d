"""Packages of a few bytes, of which nothing can be scored: for what only moves them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from scoring.packages.documents import LAYER_ORDER, LAYER_TYPE, MANIFEST_TYPE
from serve.packaging.layers import write_layer
from serve.packaging.tarball import FileEntry

if TYPE_CHECKING:
    from serve.registry.blobs import BlobStore


def put_package(store: BlobStore, *, platform: str = "linux/amd64", model: bytes = b"m") -> str:
    """Stores a package with all its layers; its digest."""
    system, _, architecture = platform.partition("/")
    layers = {
        name: write_layer([FileEntry.from_bytes(f"opt/fieldpost/{name}/file", model)], store)
        for name in LAYER_ORDER
    }
    config = store.put_bytes(
        json.dumps(
            {
                "architecture": architecture,
                "os": system,
                "config": {"Env": ["A=b"], "User": "65532:65532"},
                "rootfs": {"type": "layers", "diff_ids": [x.diff_id for x in layers.values()]},
                "history": [{"created_by": name} for name in layers],
            }
        ).encode()
    )
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": config.digest,
            "size": config.size,
        },
        "layers": [
            {
                "mediaType": LAYER_TYPE,
                "digest": layer.digest,
                "size": layer.size,
                "annotations": {"dev.fieldpost.layer": name},
            }
            for name, layer in layers.items()
        ],
        "annotations": {"dev.fieldpost.python": "3.11", "dev.fieldpost.model.name": "small"},
    }
    return store.put_bytes(json.dumps(manifest).encode()).digest

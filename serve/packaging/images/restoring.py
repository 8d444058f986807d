"""Makes a package's own documents again from its image, where a copy has left them behind.

What copies images (`skopeo copy`, a registry's replication) takes what the image names, and the
package's manifest and configuration stand beside it. Putting a package on a base changes both in a
known way, which is undone here. The digest that the image carries says whether that is exact.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import msgspec

from scoring import digest as digests
from scoring.packages.documents import (
    CONFIG_TYPE,
    INDEX_TYPE,
    LAYER_NAME,
    MANIFEST_TYPE,
    PACKAGE,
    Descriptor,
    Index,
    Manifest,
    canonical_json,
)
from serve.packaging.image import ENVIRONMENT

MAX_BYTES = 4 << 20

Read: TypeAlias = Callable[[Descriptor], bytes]
_BASE = frozenset({"org.opencontainers.image.base.name", "org.opencontainers.image.base.digest"})


def restore(document: bytes, read: Read) -> dict[str, bytes] | None:
    """The package's documents, made from an image's or an index's.

    Args:
        document: The image's manifest, or the index of images.
        read: Gives the bytes of what it names, and raises where it cannot.

    Returns:
        Digest to bytes of manifests, configurations and index; None where they cannot be made
        exactly: another release wrote the image, or it has been put on another base than the
        package names.
    """
    try:
        if msgspec.json.decode(document, type=Index).media_type == INDEX_TYPE:
            return _index(document, read)
    except msgspec.MsgspecError:
        pass  # a manifest, which names no other
    try:
        manifest = msgspec.json.decode(document, type=Manifest)
        if manifest.config.size > MAX_BYTES:
            return None
        return _package(manifest, msgspec.json.decode(read(manifest.config)))
    except (msgspec.MsgspecError, KeyError, TypeError, AttributeError):
        return None


def _index(document: bytes, read: Read) -> dict[str, bytes] | None:
    index = msgspec.json.decode(document, type=Index)
    found: dict[str, bytes] = {}
    entries = []
    for entry in index.manifests:
        if entry.size > MAX_BYTES:
            return None
        content = read(entry)
        below = restore(content, read)
        if below is None:
            return None
        digest = msgspec.json.decode(content, type=Manifest).annotations[PACKAGE]
        size = len(below[digest])
        entries.append(Descriptor(MANIFEST_TYPE, digest, size, platform=entry.platform))
        found |= below
    kept = {key: value for key, value in index.annotations.items() if key != PACKAGE}
    made = _canonical(INDEX_TYPE, {"manifests": entries, "annotations": kept})
    return _exact(index.annotations.get(PACKAGE, ""), made, found)


def _package(image: Manifest, config: dict[str, Any]) -> dict[str, bytes] | None:
    """A package that names no base, else one that names that of its image."""
    layers = [layer for layer in image.layers if LAYER_NAME in layer.annotations]
    labels = {key: value for key, value in image.annotations.items() if key != PACKAGE}
    for names in ({k: v for k, v in labels.items() if k not in _BASE}, labels):
        own = canonical_json(_config(config, names, len(layers)))
        digest = digests.of_bytes(own)
        made = _canonical(
            MANIFEST_TYPE,
            {
                "config": {"mediaType": CONFIG_TYPE, "digest": digest, "size": len(own)},
                "layers": layers,
                "annotations": names,
            },
        )
        found = _exact(image.annotations.get(PACKAGE, ""), made, {digest: own})
        if found is not None:
            return found
    return None


def _config(image: dict[str, Any], labels: dict[str, str], count: int) -> dict[str, Any]:
    """The configuration without what came from the base."""
    above = len(image["rootfs"]["diff_ids"]) - count
    return {
        **image,
        "config": {**image["config"], "Env": ENVIRONMENT, "Labels": labels},
        "rootfs": {**image["rootfs"], "diff_ids": image["rootfs"]["diff_ids"][above:]},
        "history": image["history"][len(image["history"]) - count :],
    }


def _canonical(media_type: str, document: dict[str, Any]) -> bytes:
    return canonical_json({"schemaVersion": 2, "mediaType": media_type, **document})


def _exact(digest: str, made: bytes, below: dict[str, bytes]) -> dict[str, bytes] | None:
    return {**below, digest: made} if digests.of_bytes(made) == digest else None

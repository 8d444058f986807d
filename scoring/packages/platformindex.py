"""Packages for several platforms: an OCI index that names one package for each."""

from __future__ import annotations

import platform as machine
from typing import TYPE_CHECKING

import msgspec

from scoring import digest as digests
from scoring.errors import DigestMismatchError, NotFoundError, PackagingError, UsageError
from scoring.packages.documents import (
    INDEX_TYPE,
    MANIFEST_TYPE,
    PREFIX,
    Descriptor,
    Index,
    Manifest,
    Platform,
    canonical_json,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from scoring.packages.storage import Blobs, StoredBlob

_DOCUMENT_BYTES = 4 << 20
# Of a platform's package, and not of them all.
_PARTICULAR = frozenset({PREFIX + "environment.hash"})


def parse_platforms(text: str | None) -> tuple[str, ...]:
    """`linux/amd64,linux/arm64` as names, each once; none for None.

    Raises:
        UsageError: A name is empty, or comes twice.
    """
    if text is None:
        return ()
    names = tuple(part.strip() for part in text.split(","))
    if "" in names or len(set(names)) != len(names):
        raise UsageError(
            f"{text!r} is no list of platforms.",
            hint="Write each once, with commas between: linux/amd64,linux/arm64.",
        )
    return names


def put_index(packages: Mapping[str, str], blobs: Blobs) -> StoredBlob:
    """Stores the index of packages.

    Args:
        packages: Platform to the digest of its package, which is in the store.
        blobs: The store.
    """
    entries, annotations = [], {}
    for name in sorted(packages):
        content = blobs.path(packages[name]).read_bytes()
        manifest = msgspec.json.decode(content, type=Manifest)
        system, _, architecture = name.partition("/")
        entries.append(
            Descriptor(
                media_type=MANIFEST_TYPE,
                digest=packages[name],
                size=len(content),
                platform=Platform(architecture=architecture, os=system),
            )
        )
        annotations = manifest.annotations
    document = {
        "schemaVersion": 2,
        "mediaType": INDEX_TYPE,
        "manifests": entries,
        "annotations": {k: v for k, v in annotations.items() if k not in _PARTICULAR},
    }
    return blobs.put_bytes(canonical_json(document))


def package_manifests(digest: str, blobs: Blobs) -> Index | None:
    """The index of a package of several platforms; None for a package of one.

    Raises:
        NotFoundError: It is not in the store.
        DigestMismatchError: It is damaged.
    """
    digests.parse(digest)
    if not blobs.has(digest):
        raise NotFoundError(
            f"The blob {digest} is not in the store.",
            hint="Build the package again, or pull it from where it came from.",
        )
    path = blobs.path(digest)
    if path.stat().st_size > _DOCUMENT_BYTES:
        raise PackagingError(f"{digest} is too large for a manifest.")
    content = path.read_bytes()
    if digests.of_bytes(content) != digest:
        raise DigestMismatchError(
            f"The stored blob {digest} is damaged.", hint="Remove it and build the package again."
        )
    try:
        index = msgspec.json.decode(content, type=Index)
    except (msgspec.DecodeError, msgspec.ValidationError):
        return None  # a manifest, or what its reader refuses
    return index if index.media_type == INDEX_TYPE else None


def for_platform(index: Index, platform: str) -> str:
    """The digest of the package for a platform.

    Raises:
        PackagingError: There is none.
    """
    offered = {entry.platform.name: entry.digest for entry in index.manifests if entry.platform}
    if platform not in offered:
        raise PackagingError(
            f"The package is for {' and '.join(offered)}, and not for {platform}.",
            hint=f"Build it with --platform {','.join((*offered, platform))}.",
        )
    return offered[platform]


def resolve(digest: str, blobs: Blobs, platform: str) -> str:
    """The package itself, or of one for several platforms that of this one.

    Raises:
        NotFoundError: It is not in the store.
        PackagingError: It is for other platforms.
    """
    index = package_manifests(digest, blobs)
    return digest if index is None else for_platform(index, platform)


def this_platform() -> str:
    """`linux/amd64` or `linux/arm64`, by this machine's processor."""
    arm = machine.machine().lower() in {"aarch64", "arm64"}
    return "linux/arm64" if arm else "linux/amd64"

"""Packages for several platforms."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from scoring.errors import DigestMismatchError, NotFoundError, PackagingError, UsageError
from scoring.packages.platformindex import (
    for_platform,
    package_manifests,
    parse_platforms,
    put_index,
    resolve,
)

if TYPE_CHECKING:
    from serve.registry.blobs import BlobStore

AMD64, ARM64 = "linux/amd64", "linux/arm64"


@pytest.fixture
def packages(blobs: BlobStore) -> dict[str, str]:
    """Manifests of nothing, one for each platform."""
    found = {}
    for platform in (ARM64, AMD64):
        manifest = {
            "schemaVersion": 2,
            "config": {"mediaType": "c", "digest": "sha256:" + "0" * 64, "size": 1},
            "layers": [],
            "annotations": {
                "org.opencontainers.image.title": "iris",
                "dev.fieldpost.environment.hash": platform,
            },
        }
        found[platform] = blobs.put_bytes(json.dumps(manifest).encode()).digest
    return found


def test_the_index_does_not_depend_on_the_order(blobs: BlobStore, packages: dict[str, str]) -> None:
    one = put_index(packages, blobs)
    two = put_index(dict(reversed(packages.items())), blobs)
    assert one.digest == two.digest
    document = json.loads(blobs.read_bytes(one.digest))
    assert document["annotations"] == {"org.opencontainers.image.title": "iris"}
    assert [entry["platform"]["architecture"] for entry in document["manifests"]] == [
        "amd64",
        "arm64",
    ]


def test_each_platform_gets_its_own(blobs: BlobStore, packages: dict[str, str]) -> None:
    digest = put_index(packages, blobs).digest
    assert resolve(digest, blobs, AMD64) == packages[AMD64]
    assert resolve(digest, blobs, ARM64) == packages[ARM64]
    assert resolve(packages[ARM64], blobs, AMD64) == packages[ARM64]
    assert package_manifests(packages[ARM64], blobs) is None


def test_a_platform_that_it_is_not_for(blobs: BlobStore, packages: dict[str, str]) -> None:
    index = package_manifests(put_index({ARM64: packages[ARM64]}, blobs).digest, blobs)
    assert index is not None
    with pytest.raises(PackagingError, match="for linux/arm64, and not for linux/amd64") as caught:
        for_platform(index, AMD64)
    assert "--platform linux/arm64,linux/amd64" in caught.value.hint


def test_what_is_not_there_or_damaged(blobs: BlobStore, packages: dict[str, str]) -> None:
    digest = put_index(packages, blobs).digest
    path = blobs.path(digest)
    path.chmod(0o644)
    path.write_bytes(path.read_bytes().replace(b"iris", b"irid"))
    with pytest.raises(DigestMismatchError):
        resolve(digest, blobs, AMD64)
    with pytest.raises(NotFoundError):
        resolve("sha256:" + "1" * 64, blobs, AMD64)


def test_lists_of_platforms() -> None:
    assert parse_platforms(None) == ()
    assert parse_platforms(AMD64) == (AMD64,)
    assert parse_platforms(f"{AMD64}, {ARM64}") == (AMD64, ARM64)
    for text in ("", f"{AMD64},", f"{AMD64},{AMD64}"):
        with pytest.raises(UsageError):
            parse_platforms(text)

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from scoring.errors import AlreadyExistsError, NotFoundError
from serve.registry import tables

if TYPE_CHECKING:
    from collections.abc import Callable

    from serve.registry import Registry
    from serve.registry.records import Package

SPDX = "application/spdx+json"
SIGNATURE = "application/vnd.dev.cosign.artifact.sig.v1+json"


def attach(registry: Registry, package: Package, manifest: bytes = b"{}", kind: str = SPDX) -> str:
    parts = [b"config", b"of " + manifest]
    return registry.referrers.attach(
        manifest, parts, subject=package.digest, artifact_type=kind
    ).digest


def test_attachments_are_listed_in_their_order(
    registry: Registry, package: Callable[..., Package]
) -> None:
    one = package()
    digests = [attach(registry, one, b"%d" % n, SPDX if n else SIGNATURE) for n in (3, 0, 2)]
    found = registry.referrers.list(one.digest)
    assert [each.digest for each in found] == digests
    assert [each.digest for each in registry.referrers.list(one.digest, SIGNATURE)] == digests[1:2]
    assert registry.referrers.manifest(found[0]) == b"3"
    contents = [registry.blobs.read_bytes(blob.digest) for blob in found[0].blobs]
    assert contents == [b"config", b"of 3"]
    assert found[0].size == 1 + 6 + 4


def test_the_same_again_stays_as_it_is(registry: Registry, package: Callable[..., Package]) -> None:
    one = package()
    attach(registry, one)
    (before,) = registry.referrers.list(one.digest)
    attach(registry, one)
    assert registry.referrers.list(one.digest) == (before,)


def test_nothing_is_attached_to_what_is_not_there(registry: Registry) -> None:
    with pytest.raises(NotFoundError, match="attach"):
        registry.referrers.attach(b"{}", [b"x"], subject="sha256:" + "0" * 64, artifact_type=SPDX)
    registry.gc()
    assert registry.blobs.digests() == []


def test_a_manifest_is_attached_to_one_package(
    registry: Registry, package: Callable[..., Package]
) -> None:
    one, other = package(), package(content=b"another layer")
    attach(registry, one)
    with pytest.raises(AlreadyExistsError, match=one.digest):
        attach(registry, other)


def test_attachments_outlive_sweeps_and_go_with_their_package(
    registry: Registry, package: Callable[..., Package]
) -> None:
    one = package()
    attach(registry, one)
    before = registry.blobs.digests()
    registry.gc()
    assert registry.blobs.digests() == before
    model = one.model_ref
    assert model is not None
    registry.packages.delete(one.digest)
    assert registry.referrers.list(one.digest) == ()
    left = registry.blobs.digests()
    assert len(left) == 1, "the model's own file"
    registry.models.delete(model)
    assert registry.blobs.digests() == []


def test_what_two_attachments_share_stays_for_the_other(
    registry: Registry, package: Callable[..., Package]
) -> None:
    one, other = package(), package(content=b"another layer")
    attach(registry, one, b"1")
    attach(registry, other, b"2")
    registry.packages.delete(one.digest)
    (left,) = registry.referrers.list(other.digest)
    assert [registry.blobs.has(blob.digest) for blob in left.blobs] == [True, True]
    registry.referrers.remove([left])
    assert registry.referrers.list(other.digest) == ()
    assert not any(registry.blobs.has(blob.digest) for blob in left.blobs)


def test_the_second_version_of_the_tables_is_the_one_that_has_them() -> None:
    assert tables.SCHEMA_VERSION >= 2
    assert set(tables.ATTACHMENTS) <= set(tables.STATEMENTS)

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from scoring import digest as digests
from scoring.errors import (
    DigestMismatchError,
    InUseError,
    InvalidNameError,
    NotFoundError,
)
from serve.registry.records import Blob, ModelVersion, Package

if TYPE_CHECKING:
    from serve.registry import Registry

Register = Callable[..., ModelVersion]
Build = Callable[..., Package]


def test_a_package_holds_all_that_was_said(registry: Registry, package: Build) -> None:
    built = package()
    assert (built.model, built.model_version, built.model_ref) == ("iris", 1, "iris:1")
    assert (built.environment, built.platform) == ("sha256:env", "linux/amd64")
    manifest = registry.packages.manifest(built)
    assert digests.of_bytes(manifest) == built.digest
    assert built.size == len(manifest) + 5
    assert [blob.digest for blob in built.blobs] == [digests.of_bytes(b"layer")]
    assert built.to_dict()["blobs"][0]["size"] == 5


def test_a_package_is_found_in_every_way(
    registry: Registry, register: Register, package: Build
) -> None:
    one = package(register(), b"1")
    two = package(register(), b"2")
    for ref in (two.digest, two.digest[7:], two.digest[7:15], two.digest[:15], "iris:2", "iris"):
        assert registry.packages.get(ref) == two
    assert registry.packages.get("iris:1") == one
    assert registry.packages.list() == (two, one)
    assert registry.packages.list("iris") == (two, one)
    assert registry.packages.list("other") == ()


def test_the_same_package_again_is_the_newest(
    registry: Registry, register: Register, package: Build
) -> None:
    version = register()
    one = package(version, b"1")
    two = package(version, b"2")
    assert registry.packages.get("iris:1") == two
    assert package(version, b"1") == one
    assert registry.packages.get("iris:1") == one
    assert registry.packages.list() == (one, two)


def test_the_newest_package_again_is_not_written(
    registry: Registry, register: Register, package: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = register()
    one = package(version, b"1")
    with monkeypatch.context() as patch:
        patch.setattr(type(registry.packages), "_insert", None)  # to write would fail
        assert package(version, b"1") == one
    two = package(version, b"2")
    assert package(version, b"1") == one
    assert registry.packages.list() == (one, two)


def test_a_package_without_a_model(registry: Registry) -> None:
    layer = registry.blobs.put_bytes(b"code")
    manifest = registry.blobs.put_bytes(b"manifest")
    built = registry.packages.register(
        manifest.digest,
        [layer, layer],
        model=None,
        model_version=None,
        environment=None,
        platform="linux/arm64",
    )
    assert built.model_ref is None
    assert built.blobs == (layer, layer)
    assert registry.packages.get(built.digest[7:20]) == built


@pytest.mark.parametrize("ref", ["", "Iris", "sha256:", "sha256:1234567", "iris:x", "../x"])
def test_what_is_no_reference(registry: Registry, ref: str) -> None:
    with pytest.raises(InvalidNameError):
        registry.packages.get(ref)


@pytest.mark.parametrize("ref", ["iris", "iris:1", "0123abcd", "sha256:" + "0" * 64])
def test_what_names_nothing(registry: Registry, ref: str) -> None:
    with pytest.raises(NotFoundError, match="no package"):
        registry.packages.get(ref)


def test_a_prefix_that_several_packages_share(registry: Registry) -> None:
    seen: dict[str, bytes] = {}
    for number in itertools.count():  # until two digests begin alike
        content = b"%d" % number
        prefix = digests.of_bytes(content)[7:15]
        if prefix in seen:
            break
        seen[prefix] = content
    built = [
        registry.packages.register(
            each, [], model=None, model_version=None, environment=None, platform="p"
        )
        for each in (seen[prefix], content)
    ]
    with pytest.raises(InvalidNameError, match="Several packages") as caught:
        registry.packages.get(prefix)
    assert all(each.digest in caught.value.hint for each in built)
    assert registry.packages.get(built[0].digest) == built[0]
    with pytest.raises(NotFoundError):
        registry.packages.get(prefix[:7])  # a name, not a prefix


def test_a_package_needs_its_blobs_and_its_model(registry: Registry, register: Register) -> None:
    there = registry.blobs.put_bytes(b"there")
    missing = Blob(digest="sha256:" + "0" * 64, size=1)
    version = register()

    def build(blobs: list[Blob], number: int) -> Package:
        return registry.packages.register(
            b"{}",
            blobs,
            model=version.name,
            model_version=number,
            environment=None,
            platform="p",
        )

    with pytest.raises(NotFoundError, match="missing"):
        build([there, missing], 1)
    with pytest.raises(NotFoundError, match="iris:2"):
        build([there], 2)
    assert registry.packages.list() == ()


def test_a_damaged_manifest_is_noticed(registry: Registry, package: Build) -> None:
    built = package()
    path = registry.blobs.path(built.digest)
    path.chmod(0o644)
    path.write_bytes(b"{}")
    with pytest.raises(DigestMismatchError):
        registry.packages.manifest(built)


def test_deleting(registry: Registry, package: Build) -> None:
    built = package()
    registry.deployments.create_revision("web", target="local", package=built.digest)
    with pytest.raises(InUseError, match="web"):
        registry.packages.delete("iris")
    registry.deployments.fail("web", 1, "it was wrong")
    registry.deployments.delete("web")
    assert registry.packages.delete("iris").blobs == 2
    assert registry.packages.list() == ()
    assert [each.ref for each in registry.models.list()] == ["iris:1"]

"""A package's documents from its image alone: exactly, or not at all."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from scoring import digest as digests
from scoring.packages.documents import Descriptor
from scoring.packages.platformindex import put_index
from serve.packaging.build import build_package
from serve.packaging.images.bases import open_local
from serve.packaging.images.compose import compose
from serve.packaging.images.imageset import ImageSet, compose_all
from serve.packaging.images.restoring import restore
from serve.packaging.plan import BaseImage
from tests.support.smallbases import write_layout

if TYPE_CHECKING:
    from pathlib import Path

    from serve.packaging.images.bases import Base
    from serve.packaging.images.basestore import BaseStore
    from serve.packaging.images.compose import Image
    from tests.unit.serve.packaging.conftest import Built


def reader(image: Image | ImageSet) -> Any:
    def read(descriptor: Descriptor) -> bytes:
        with image.open(descriptor) as source:
            return source.read()

    return read


def same(built: Built, found: dict[str, bytes] | None, wanted: list[Descriptor]) -> bool:
    """Whether these documents were made, byte for byte, and no others."""
    stored = {each.digest: built.blobs.path(each.digest).read_bytes() for each in wanted}
    return found == stored


def test_a_package_comes_back_byte_for_byte(built: Built, store: BaseStore, tmp_path: Path) -> None:
    variables = ["PATH=/opt/python/bin", "LANG=de_DE", "PYTHON_VERSION=3.11.9"]
    write_layout(tmp_path / "rich", Env=variables, Labels={"a": "b"}, User="root")
    base = open_local(f"oci:{tmp_path}/rich", "linux/amd64", store)
    image = compose(built.package.digest, base, built.blobs)
    assert same(built, restore(image.manifest, reader(image)), [*image.companions()])


def test_one_that_names_its_base(built: Built, base: Base) -> None:
    named = replace(base, name="registry.example/base:1")
    pinned = BaseImage(name=named.name, digest=named.digest)
    package = build_package(
        msgspec.structs.replace(built.plan, base=pinned), built.blobs, built.cache
    )
    image = compose(package.digest, named, built.blobs)
    assert same(built, restore(image.manifest, reader(image)), [*image.companions()])
    other = compose(package.digest, base, built.blobs)  # which base it named is lost
    assert restore(other.manifest, reader(other)) is None


def test_one_for_several_platforms(built: Built, base: Base) -> None:
    index = put_index({"linux/amd64": built.package.digest}, built.blobs)
    images = compose_all(index.digest, lambda _platform, _digest: base, built.blobs)
    assert images.digest != images.images[0].digest
    assert same(built, restore(images.document, reader(images)), [*images.companions()])


@pytest.mark.parametrize("changed", ["Env", "User", "Entrypoint"])
def test_nothing_is_made_that_is_not_exact(built: Built, base: Base, changed: str) -> None:
    """Another release's variables are replaced by ours; what else differs is kept and told."""
    image = compose(built.package.digest, base, built.blobs)
    config = json.loads(image.config)
    config["config"][changed] = ["X=1"]
    found = restore(image.manifest, lambda _descriptor: json.dumps(config).encode())
    assert (found is None) == (changed != "Env")


@pytest.mark.parametrize("config", [b"", b"[]", b"{}", b'{"rootfs": 1}', b'{"config": null}'])
def test_garbage_is_no_package(built: Built, base: Base, config: bytes) -> None:
    image = compose(built.package.digest, base, built.blobs)
    assert restore(image.manifest, lambda _descriptor: config) is None
    assert restore(config, lambda _descriptor: config) is None


def test_a_huge_configuration_is_not_read(built: Built, base: Base) -> None:
    image = compose(built.package.digest, base, built.blobs)
    manifest = json.loads(image.manifest)
    manifest["config"]["size"] = 1 << 30

    def read(_descriptor: Descriptor) -> bytes:
        raise AssertionError("it is read")

    content = json.dumps(manifest).encode()
    assert digests.of_bytes(content) != image.digest
    assert restore(content, read) is None

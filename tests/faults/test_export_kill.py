"""`kill -9` at any step of an export leaves the file or layout of before, or the new one, whole."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from serve.packaging.images.bases import open_local
from serve.packaging.images.basestore import BaseStore
from serve.packaging.images.export import export, parse_destination
from serve.packaging.images.finding import BaseFinder
from serve.packaging.images.imageset import ImageSet, compose_all
from serve.packaging.images.importing import open_layout, take_package
from serve.registry.blobs import BlobStore
from tests.faults import harness
from tests.support.smallbases import archive, system
from tests.support.smallpackages import put_package


@pytest.fixture
def rootfs(tmp_path: Path) -> Path:
    path = tmp_path / "base.tar"
    path.write_bytes(archive(system()))
    return path


@pytest.fixture
def images(tmp_path: Path, rootfs: Path) -> list[ImageSet]:
    """Two images that differ in their model."""
    store = BlobStore(tmp_path / "store")
    store.create()
    base = BaseFinder(tmp_path / "workspace").open(f"rootfs:{rootfs}", "linux/amd64")
    packages = [put_package(store, model=model) for model in (b"old", b"new")]
    return [compose_all(package, lambda *_: base, store) for package in packages]


def package_at(place: str, scratch: Path) -> str:
    """The package in a layout or archive, all of its bytes checked."""
    shutil.rmtree(scratch, ignore_errors=True)
    store = BlobStore(scratch)
    store.create()
    layout, root = open_layout(place)
    for descriptor in layout.index().manifests:
        with layout.open(descriptor.digest, descriptor.size) as source:
            manifest = json.loads(source.read())
        for each in (manifest["config"], *manifest["layers"]):
            with layout.open(each["digest"], each["size"]) as source:
                source.read()
    return take_package(layout, root, store, None)


@pytest.mark.parametrize("kind", ["oci", "oci-archive"])
def test_an_export_killed_at_any_step(kind: str, images: list[ImageSet], tmp_path: Path) -> None:
    folder = tmp_path / "out"
    place = f"{kind}:{folder}/image"
    old, new = images
    tag = ":v1" if kind == "oci" else ""

    def prepare() -> Callable[[], None]:
        shutil.rmtree(folder, ignore_errors=True)
        export(old, parse_destination(f"{place}{tag}"))
        return lambda: void(export(new, parse_destination(f"{place}{tag}")))

    def check(_number: int) -> None:
        found = package_at(f"{place}{tag}", tmp_path / "scratch")
        assert found in (old.package.digest, new.package.digest)
        export(new, parse_destination(f"{place}{tag}"))
        assert package_at(f"{place}{tag}", tmp_path / "scratch") == new.package.digest
        assert list(folder.rglob(".fieldpost-tmp-*")) == []

    assert harness.kill_in_fork(prepare, check, sample=12) >= 3


def test_a_first_export_killed_at_any_step_leaves_no_layout(
    images: list[ImageSet], tmp_path: Path
) -> None:
    folder = tmp_path / "out"

    def prepare() -> Callable[[], None]:
        shutil.rmtree(folder, ignore_errors=True)
        return lambda: void(export(images[0], parse_destination(f"oci:{folder}/image")))

    def check(_number: int) -> None:
        place = f"oci:{folder}/image"
        if (folder / "image").exists():
            assert package_at(place, tmp_path / "scratch") == images[0].package.digest
        export(images[0], parse_destination(place))
        assert package_at(place, tmp_path / "scratch") == images[0].package.digest

    assert harness.kill_in_fork(prepare, check, sample=12) >= 3


def test_an_import_of_a_base_killed_at_any_step(rootfs: Path, tmp_path: Path) -> None:
    place = tmp_path / "bases"
    text = f"rootfs:{rootfs}"
    wanted = open_local(text, "linux/amd64", BaseStore(tmp_path / "other")).digest

    def prepare() -> Callable[[], None]:
        shutil.rmtree(place, ignore_errors=True)
        return lambda: void(open_local(text, "linux/amd64", BaseStore(place)))

    def check(_number: int) -> None:
        base = open_local(text, "linux/amd64", BaseStore(place))
        assert base.digest == wanted
        with base.open(base.layers[0]) as layer:
            layer.read()

    assert harness.kill_in_fork(prepare, check, sample=12) >= 3


def void(_result: object) -> None:
    """Takes what nobody needs."""

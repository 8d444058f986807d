from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from scoring import bundle as bundles
from scoring.errors import DigestMismatchError, NotFoundError, PackagingError, StorageFullError
from scoring.packages import unpack
from scoring.packages.documents import canonical_json
from scoring.packages.unpack import unpack_package
from serve.registry.blobs import BlobStore

if TYPE_CHECKING:
    from pathlib import Path

Built = Any  # of conftest.py, which cannot be imported


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory, built: Built) -> tuple[str, BlobStore]:
    """The same package without its large environment layer."""
    store = BlobStore(tmp_path_factory.mktemp("small"))
    store.create()
    manifest = json.loads(built.blobs.path(built.package.digest).read_bytes())
    config = json.loads(built.blobs.path(built.package.config_digest).read_bytes())
    del manifest["layers"][0], config["rootfs"]["diff_ids"][0]
    for layer in manifest["layers"]:
        store.put_bytes(built.blobs.path(layer["digest"]).read_bytes())
    blob = store.put_bytes(canonical_json(config))
    manifest["config"] |= {"digest": blob.digest, "size": blob.size}
    return store.put_bytes(canonical_json(manifest)).digest, store


def test_the_root_has_the_layout_of_a_package(small: Any, tmp_path: Path, built: Built) -> None:
    digest, blobs = small
    root = unpack_package(digest, blobs, tmp_path / "cache")
    assert bundles.read(root) == built.plan.bundle
    assert (root / "model/compiled/model.onnx").read_bytes() == built.model
    assert (root / "runtime/scoring/boot.py").is_file()
    assert (root / "runtime/serve/server/__init__.py").is_file()
    assert not (root / "runtime/serve/packaging").exists()
    assert not list((root / "runtime").rglob("*.pyc"))


def test_layers_are_shared_and_the_cache_can_be_moved(small: Any, tmp_path: Path) -> None:
    digest, blobs = small
    root = unpack_package(digest, blobs, tmp_path / "cache")
    before = {path.stat().st_ino for path in (tmp_path / "cache/layers").iterdir()}
    assert unpack_package(digest, blobs, tmp_path / "cache") == root
    assert {path.stat().st_ino for path in (tmp_path / "cache/layers").iterdir()} == before
    (tmp_path / "cache").rename(tmp_path / "moved")
    assert bundles.read(tmp_path / "moved" / "roots" / root.name).name == "iris"


def test_leftovers_and_holes_are_repaired(small: Any, tmp_path: Path) -> None:
    digest, blobs = small
    cache = tmp_path / "cache"
    root = unpack_package(digest, blobs, cache)
    layer = (root / "model").resolve().parents[2]
    (root / "model/compiled/model.onnx").unlink()
    (cache / "work" / ".fieldpost-work-0123456789abcdef" / "layer").mkdir(parents=True)
    assert unpack_package(digest, blobs, cache) == root
    assert (root / "model/compiled/model.onnx").is_file()
    shutil.rmtree(layer)
    layer.mkdir()
    (layer / "opt").mkdir()
    (root / "runtime").unlink()
    assert unpack_package(digest, blobs, cache) == root
    assert bundles.read(root).name == "iris"
    assert (root / "runtime/scoring/boot.py").is_file()
    assert list((cache / "work").iterdir()) == []


def test_many_at_once_unpack_each_layer_once(
    small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest, blobs = small
    unpacked = []
    original = unpack._unpack_into

    def counted(target: Path, layer: Any, *rest: Any) -> None:
        unpacked.append(layer.name)
        original(target, layer, *rest)

    monkeypatch.setattr(unpack, "_unpack_into", counted)
    with ThreadPoolExecutor(8) as pool:
        roots = set(pool.map(lambda _: unpack_package(digest, blobs, tmp_path), range(8)))
    assert len(roots) == 1
    assert sorted(unpacked) == ["model", "runtime"]
    assert bundles.read(roots.pop()).name == "iris"


def test_damage_leaves_nothing_behind(small: Any, tmp_path: Path) -> None:
    digest, blobs = small
    copy = BlobStore(tmp_path / "store")
    copy.create()
    for each in blobs.digests():
        copy.put_bytes(blobs.path(each).read_bytes())
    root = unpack_package(digest, blobs, tmp_path / "whole")
    diff_id = (root / "model").resolve().parents[2].name
    manifest = json.loads(copy.path(digest).read_bytes())
    victim = copy.path(manifest["layers"][-1]["digest"])
    victim.chmod(0o644)
    content = bytearray(victim.read_bytes())
    content[-20] ^= 1
    victim.write_bytes(bytes(content))
    with pytest.raises(DigestMismatchError):
        unpack_package(digest, copy, tmp_path / "cache")
    assert not (tmp_path / "cache" / "layers" / diff_id).exists()
    assert not list((tmp_path / "cache" / "work").iterdir())
    victim.unlink()
    with pytest.raises(NotFoundError):
        unpack_package(digest, copy, tmp_path / "cache")


def test_a_layer_of_another_kind_is_refused(small: Any, tmp_path: Path) -> None:
    digest, blobs = small
    manifest = json.loads(blobs.path(digest).read_bytes())
    manifest["layers"][0]["annotations"]["dev.fieldpost.layer"] = "../../evil"
    changed = blobs.put_bytes(canonical_json(manifest))
    with pytest.raises(PackagingError, match="no part of a package"):
        unpack_package(changed.digest, blobs, tmp_path)


def test_a_layer_larger_than_its_manifest_says_is_refused(small: Any, tmp_path: Path) -> None:
    from scoring.errors import UnsafeArchiveError

    digest, blobs = small
    manifest = json.loads(blobs.path(digest).read_bytes())
    manifest["layers"][0]["annotations"]["dev.fieldpost.unpacked-size"] = "1024"
    changed = blobs.put_bytes(canonical_json(manifest))
    with pytest.raises(UnsafeArchiveError, match="over 1024 bytes"):
        unpack_package(changed.digest, blobs, tmp_path)


def test_space_is_checked_before_anything_is_written(
    small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest, blobs = small
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1 << 20))
    with pytest.raises(StorageFullError, match="1 MiB are free"):
        unpack_package(digest, blobs, tmp_path / "cache")
    assert not (tmp_path / "cache" / "layers").exists()

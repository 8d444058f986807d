"""Builds and unpacks are killed at any moment: what has its final name is whole."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from typing import TYPE_CHECKING

import pytest

from scoring.bundle import Bundle
from scoring.errors import StorageFullError
from scoring.packages.reading import verify_package
from scoring.packages.unpack import unpack_package
from serve.packaging.build import build_package
from serve.packaging.cache import LayerCache
from serve.packaging.lock import Lock
from serve.packaging.plan import BuildPlan, ModelFile
from serve.packaging.requirements import target_for
from serve.registry.blobs import BlobStore

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

KILLS = 200 if os.environ.get("FIELDPOST_TEST_LONG") else 15


def _plan(store: BlobStore) -> BuildPlan:
    noise = random.Random(1)
    files = []
    for number in range(60):
        blob = store.put_bytes(noise.randbytes(noise.randrange(300_000)))
        files.append(ModelFile(f"m/{number}", blob.digest, blob.size))
    return BuildPlan(
        bundle=Bundle(name="m", runtime="onnx"),
        lock=Lock(text="", target=target_for(None)),
        model_files=tuple(files),
    )


def _killed_after(seconds: float, work: Callable[[], object]) -> bool:
    """Does the work in a child, killed so long after it began; whether it was still at it."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(0)
    time.sleep(seconds)  # not a wait for anything: the moment of the kill
    os.kill(child, signal.SIGKILL)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def _duration(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


@pytest.fixture
def store(tmp_path: Path) -> BlobStore:
    made = BlobStore(tmp_path / "store")
    made.create()
    return made


def test_a_killed_unpack_leaves_nothing_that_looks_whole(tmp_path: Path, store: BlobStore) -> None:
    plan = _plan(store)
    digest = build_package(plan, store, LayerCache(tmp_path / "layers")).digest
    cache = tmp_path / "cache"
    whole = _duration(lambda: unpack_package(digest, store, tmp_path / "once"))
    moments = random.Random(2)
    killed = 0
    for _ in range(KILLS):
        was_killed = _killed_after(
            moments.uniform(0, whole), lambda: unpack_package(digest, store, cache)
        )
        killed += was_killed
        for layer in (cache / "layers").glob("*"):
            assert (layer / "layer.json").is_file()
        if not was_killed:
            shutil.rmtree(cache)
    assert killed
    root = unpack_package(digest, store, tmp_path / "cache")
    for file in plan.model_files:
        assert (root / "model" / file.path).read_bytes() == store.path(file.digest).read_bytes()
    assert not list((tmp_path / "cache" / "work").iterdir())


def test_a_killed_build_leaves_a_store_of_whole_blobs(tmp_path: Path, store: BlobStore) -> None:
    plan = _plan(store)
    other = BlobStore(tmp_path / "elsewhere")
    other.create()
    once = LayerCache(tmp_path / "once" / "layers")
    whole = _duration(lambda: build_package(_plan(other), other, once))
    moments = random.Random(3)
    killed = 0
    for _ in range(KILLS):
        killed += _killed_after(
            moments.uniform(0, whole),
            lambda: build_package(plan, store, LayerCache(tmp_path / "cache" / "layers")),
        )
        for digest in store.digests():
            assert store.verify(digest).digest == digest
        shutil.rmtree(tmp_path / "cache", ignore_errors=True)
    assert killed
    built = build_package(plan, store, LayerCache(tmp_path / "cache" / "layers"))
    verify_package(built.digest, store)
    assert build_package(_plan(other), other, once).digest == built.digest


def test_a_full_disk_leaves_what_was_there(
    tmp_path: Path, store: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = _plan(store)
    before = set(store.digests())
    real, left = os.write, 100_000

    def full(fd: int, data: bytes) -> int:
        nonlocal left
        left -= len(data)
        if left < 0:
            raise OSError(28, "No space left on device")
        return real(fd, data)

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(StorageFullError):
            build_package(plan, store, LayerCache(tmp_path / "cache" / "layers"))
    for digest in set(store.digests()) - before:
        store.verify(digest)
    assert not list(store.incoming.iterdir())
    verify_package(
        build_package(plan, store, LayerCache(tmp_path / "cache" / "layers")).digest, store
    )

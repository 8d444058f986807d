"""Builds packages: carries a plan out, layer by layer, into the blob store.

Everything is written under its digest, so that a build that is killed leaves at most blobs that
nothing names yet, and the next build takes up what is already there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from scoring import digest as digests
from scoring import durable
from scoring.packages.documents import LayerName
from scoring.packages.workfolder import work_folder
from serve.packaging.contents import (
    code_entries,
    environment_entries,
    model_entries,
    runtime_entries,
    runtime_key,
)
from serve.packaging.image import image_config, image_manifest
from serve.packaging.install import install_lock
from serve.packaging.layers import FAST, Layer, write_layer

if TYPE_CHECKING:
    from pathlib import Path

    from scoring.packages.storage import Blobs, StoredBlob
    from serve.packaging.cache import LayerCache
    from serve.packaging.plan import BuildPlan
    from serve.packaging.sharedcache import SharedCache

Clock = Callable[[], float]
Installed = Callable[["Layer", "Path"], None]


class BuiltPackage(msgspec.Struct, frozen=True):
    """A package in the blob store.

    Attributes:
        digest: Of its manifest: the package's name.
        size: Of manifest, configuration and layers together, in bytes.
        config_digest: Of its image configuration.
        layers: Name to layer, in their order in the image.
        timings: Seconds that each layer took.
    """

    digest: str
    size: int
    config_digest: str
    layers: dict[LayerName, Layer]
    timings: dict[str, float]


def build_package(
    plan: BuildPlan,
    blobs: Blobs,
    cache: LayerCache,
    *,
    shared: SharedCache | None = None,
    installed: Installed = lambda _layer, _site: None,
    clock: Clock = time.perf_counter,
) -> BuiltPackage:
    """Builds a package; the same plan gives the same digest on any machine.

    Args:
        plan: What to build.
        blobs: Where model files are read from and everything is written to.
        cache: Finds layers that were built before.
        shared: Finds environment layers that others have built, and is given ours.
        installed: Told of an environment layer that was built, and of the folder that was
            installed into, while that is there.
        clock: Seconds, for the timings.

    Raises:
        EnvironmentResolutionError: The environment's wheels cannot be had.
        PackagingError: A file changed while it was read, or names clash.
        StorageFullError: The disk is full.
    """
    timer = _Timer(clock)
    layers: dict[LayerName, Layer] = {}
    with timer.measure("env"):
        layers["env"] = _shared_layer(plan, blobs, cache, shared, installed)
    with timer.measure("runtime"):
        layers["runtime"] = _runtime_layer(blobs, cache)
    if plan.code_files:
        with timer.measure("code"):
            layers["code"] = write_layer(code_entries(plan), blobs)
    with timer.measure("model"):
        layers["model"] = _model_layer(plan, blobs, cache)
    config = _keep(image_config(plan, layers), blobs)
    manifest = _keep(image_manifest(plan, config, layers), blobs)
    return BuiltPackage(
        digest=manifest.digest,
        size=manifest.size + config.size + sum(layer.size for layer in layers.values()),
        config_digest=config.digest,
        layers=layers,
        timings=timer.seconds,
    )


class _Timer:
    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.seconds: dict[str, float] = {}

    @contextmanager
    def measure(self, name: str) -> Iterator[None]:
        start = self._clock()
        yield
        self.seconds[name] = round(self._clock() - start, 6)


def _shared_layer(
    plan: BuildPlan,
    blobs: Blobs,
    cache: LayerCache,
    shared: SharedCache | None,
    installed: Installed,
) -> Layer:
    """The environment layer: of this machine's cache, of the team's, else built for both."""
    key = plan.environment_key
    if shared is None:
        return _environment_layer(plan, blobs, cache, installed)
    if cache.find(key, blobs) is None:
        found = shared.find(key)
        if found is not None:
            cache.record(key, found)
            return found
    layer = _environment_layer(plan, blobs, cache, installed)
    shared.offer(key, layer)
    return layer


def _environment_layer(
    plan: BuildPlan, blobs: Blobs, cache: LayerCache, installed: Installed
) -> Layer:
    found = cache.find(plan.environment_key, blobs)
    if found is not None:
        return found
    with (
        durable.storage_errors("the environment layer"),
        work_folder(cache.folder.parent / "work") as work,
    ):
        site_packages = work / "site-packages"
        install_lock(plan.lock, site_packages, work=work)
        layer = write_layer(environment_entries(plan.lock, site_packages), blobs)
        installed(layer, site_packages)
    cache.record(plan.environment_key, layer)
    return layer


def _runtime_layer(blobs: Blobs, cache: LayerCache) -> Layer:
    key = runtime_key()
    found = cache.find(key, blobs)
    if found is not None:
        return found
    layer = write_layer(runtime_entries(), blobs)
    cache.record(key, layer)
    return layer


def _keep(content: bytes, blobs: Blobs) -> StoredBlob:
    """Stores a document, unless it is there, whole: to write it takes a wait for the disk."""
    digest = digests.of_bytes(content)
    if blobs.has(digest) and blobs.path(digest).read_bytes() == content:
        return _Kept(digest, len(content))
    return blobs.put_bytes(content)


class _Kept(NamedTuple):
    """A document that was there."""

    digest: str
    size: int


def _model_layer(plan: BuildPlan, blobs: Blobs, cache: LayerCache) -> Layer:
    found = cache.find(plan.model_key, blobs)
    if found is not None:
        return found
    layer = write_layer(model_entries(plan, blobs), blobs, level=FAST)
    cache.record(plan.model_key, layer)
    return layer

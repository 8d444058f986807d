"""Packages in a workspace within milliseconds: real layers, with files that are made up."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scoring.bundle import Bundle
from scoring.packages import reading
from serve.packaging.build import build_package
from serve.packaging.cache import LayerCache
from serve.packaging.contents import environment_entries
from serve.packaging.layers import write_layer
from serve.packaging.lock import Lock, LockedPackage, format_lock
from serve.packaging.plan import BuildPlan, ModelFile
from serve.packaging.platforms import Target
from serve.provenance import recording
from serve.registry.records import Blob

if TYPE_CHECKING:
    from pathlib import Path

    from serve import Workspace
    from serve.registry import Registry
    from serve.registry.records import Package

WHEELS = {
    "numpy": ("2.3.1", "License-Expression: BSD-3-Clause"),
    "tenacity": ("9.0.0", "Classifier: License :: OSI Approved :: Apache Software License"),
    "torch-x": ("1.0", "License: Our own terms"),
}


def small_lock(platform: str = "linux/amd64") -> Lock:
    """Of three wheels, one of them from a URL."""
    locked = [
        LockedPackage(name, "" if name == "torch-x" else version, f"{number}" * 64)
        for number, (name, (version, _)) in enumerate(WHEELS.items())
    ]
    url = "https://wheels.example/torch_x-1.0-py3-none-any.whl"
    locked[2] = LockedPackage("torch-x", "", locked[2].sha256, url)
    return Lock(text=format_lock(tuple(locked)), target=Target(platform=platform))


def small_package(
    workspace: Workspace,
    folder: Path,
    *,
    name: str = "iris",
    content: bytes = b"weights",
    platform: str = "linux/amd64",
) -> Package:
    """Registers a model and records a package of it, as a build would.

    Args:
        workspace: Where.
        folder: For temporary files.
        name: The model's name.
        content: The model's bytes.
        platform: What it is for.
    """
    registry = workspace.registry
    model_file = folder / f"{name}.onnx"
    model_file.write_bytes(content)
    version = registry.models.register(name, model_file, prepared={"format": "onnx"})
    blob = registry.blobs.put_bytes(content)
    plan = BuildPlan(
        bundle=Bundle(
            name=name,
            model_version=version.version,
            runtime="onnx",
            format="onnx",
            model_path="compiled/model.onnx",
        ),
        lock=small_lock(platform),
        model_files=(ModelFile("compiled/model.onnx", blob.digest, blob.size),),
        model_digest=version.digest,
    )
    return _build(registry, plan, folder)


def _build(registry: Registry, plan: BuildPlan, folder: Path) -> Package:
    cache = LayerCache(folder / "layers")
    site = _site_packages(folder / "site")
    layer = write_layer(environment_entries(plan.lock, site), registry.blobs)
    cache.record(plan.environment_key, layer)
    started = recording.now()
    built = build_package(plan, registry.blobs, cache)
    found = reading.read_package(built.digest, registry.blobs)
    package = registry.packages.register(
        built.digest,
        [
            Blob(digest=found.config.digest, size=found.config.size),
            *(Blob(digest=each.digest, size=each.size) for each in found.layers),
        ],
        model=plan.bundle.name,
        model_version=plan.bundle.model_version,
        environment=plan.lock.hash,
        platform=plan.lock.target.platform,
    )
    recording.record_build(registry, plan, package.digest, started, None)
    return package


def _site_packages(site: Path) -> Path:
    for name, (version, licence) in WHEELS.items():
        module = name.replace("-", "_")
        info = site / f"{module}-{version}.dist-info"
        info.mkdir(parents=True, exist_ok=True)
        text = f"Metadata-Version: 2.4\nName: {name}\nVersion: {version}\n{licence}\n"
        (info / "METADATA").write_text(text)
        (site / f"{module}.py").write_text(f"name = {name!r}\n")
    return site

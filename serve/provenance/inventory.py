"""What is in a package: read from its layers, so that it is the same wherever it is read.

A package that was pulled gives the same inventory as the one that was built here. Reading a layer
takes as long as decompressing it; what was found is kept in the workspace's cache by the layer's
digest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from scoring.errors import EnvironmentResolutionError, PackagingError
from scoring.packages.documents import PREFIX
from scoring.packages.reading import PackageLayer, read_package
from serve.packaging.lock import parse_lock
from serve.provenance import facts
from serve.provenance.facts import EnvironmentFacts, ModelFacts, ModelFile

if TYPE_CHECKING:
    from pathlib import Path

    from scoring.packages.reading import Package
    from scoring.packages.storage import Blobs
    from serve.packaging.lock import LockedPackage
    from serve.provenance.facts import Distribution

MAX_MODEL_FILES = 1000


class Component(msgspec.Struct, frozen=True, order=True):
    """An installed distribution.

    Attributes:
        name: Normalised (PEP 503).
        version: As its metadata tells it.
        sha256: Of the wheel that it was installed from, in hexadecimal.
        url: Where the wheel came from, for one that is from no index; else empty.
        licence: An SPDX expression; empty where the metadata has none that is valid.
        licence_text: What the metadata says instead.
    """

    name: str
    version: str
    sha256: str
    url: str = ""
    licence: str = ""
    licence_text: str = ""


class BaseFact(msgspec.Struct, frozen=True):
    """The image that the package's layers stand on."""

    name: str
    digest: str


class Inventory(msgspec.Struct, frozen=True, kw_only=True):
    """What a package holds.

    Attributes:
        package: The package's digest.
        name: The model's name, or the script's.
        version: The model's version; empty for a script.
        platform: `linux/amd64`.
        python: `3.11`.
        fieldpost: The version of our runtime.
        environment: Hash of the environment.
        model_digest: Of the registered model version; empty for none.
        format: The registered model's format; empty for none.
        runtime: What loads the model.
        components: The distributions of the environment, by name.
        model_files: The model's files, by path; none where there are too many to list.
        layers: Name to layer.
        base: What the layers stand on, where that is known.
    """

    package: str
    name: str
    version: str
    platform: str
    python: str
    fieldpost: str
    environment: str
    model_digest: str
    format: str
    runtime: str
    components: tuple[Component, ...]
    model_files: tuple[ModelFile, ...]
    layers: dict[str, PackageLayer]
    base: BaseFact | None = None


def take_inventory(digest: str, blobs: Blobs, cache: Path) -> Inventory:
    """Reads what a package holds.

    Args:
        digest: The package's.
        blobs: Where it is.
        cache: A folder for what was found in each layer; made where it is missing.

    Raises:
        NotFoundError: A blob is not in the store.
        DigestMismatchError: A blob is damaged.
        PackagingError: A layer is not what a package has.
    """
    package = read_package(digest, blobs)
    layers = {layer.name: layer for layer in package.layers}
    if not {"env", "model"} <= set(layers):
        raise PackagingError(f"{digest} lacks a layer that a package has.")
    environment = _environment(layers["env"], blobs, cache)
    model = _model(layers["model"], blobs, cache)
    return _inventory(package, layers, environment, model)


def _environment(layer: PackageLayer, blobs: Blobs, cache: Path) -> EnvironmentFacts:
    found = facts.find(cache, layer.digest, EnvironmentFacts)
    if found is None:
        from serve.provenance.layers import read_environment  # noqa: PLC0415 - heavy

        found = read_environment(layer, blobs)
        facts.keep(cache, layer.digest, found)
    return found


def _model(layer: PackageLayer, blobs: Blobs, cache: Path) -> ModelFacts:
    found = facts.find(cache, layer.digest, ModelFacts)
    if found is None:
        from serve.provenance.layers import read_model  # noqa: PLC0415 - heavy

        found = read_model(layer, blobs)
        facts.keep(cache, layer.digest, found)
    return found


def _inventory(
    package: Package,
    layers: dict[str, PackageLayer],
    environment: EnvironmentFacts,
    model: ModelFacts,
) -> Inventory:
    told = package.annotations
    base = told.get("org.opencontainers.image.base.name", "")
    return Inventory(
        package=package.digest,
        name=model.bundle.name,
        version=str(model.bundle.model_version or ""),
        platform=package.platform,
        python=told.get(PREFIX + "python", ""),
        fieldpost=told.get(PREFIX + "version", ""),
        environment=told.get(PREFIX + "environment.hash", ""),
        model_digest=told.get(PREFIX + "model.digest", ""),
        format=model.bundle.format,
        runtime=model.bundle.runtime,
        components=_components(environment),
        model_files=model.files if len(model.files) <= MAX_MODEL_FILES else (),
        layers=layers,
        base=BaseFact(base, told.get("org.opencontainers.image.base.digest", "")) if base else None,
    )


def _components(environment: EnvironmentFacts) -> tuple[Component, ...]:
    try:
        locked = parse_lock(environment.lock)
    except EnvironmentResolutionError as error:
        raise PackagingError(f"The package's lock cannot be read: {error.message}") from error
    installed = {each.name: each for each in environment.distributions}
    return tuple(_component(each, installed.get(each.name)) for each in locked)


def _component(locked: LockedPackage, installed: Distribution | None) -> Component:
    return Component(
        name=locked.name,
        version=locked.version or (installed.version if installed else ""),
        sha256=locked.sha256,
        url=locked.url,
        licence=installed.licence if installed else "",
        licence_text=installed.licence_text if installed else "",
    )

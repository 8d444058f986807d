"""What is in a package: read from its layers, so that it is the same wherever it is read.

A package that was pulled gives the same inventory as the one that was built here. Reading a layer
takes as long as decompressing it; what was found is kept in the workspace's cache by the layer's
digest.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import tarfile
import zlib
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

import msgspec

from scoring import digest as digests
from scoring import durable
from scoring.bundle import BUNDLE_FILE, IMAGE_ROOT, Bundle
from scoring.errors import DigestMismatchError, EnvironmentResolutionError, PackagingError
from scoring.packages.documents import PREFIX
from scoring.packages.reading import PackageLayer, read_package
from serve.packaging.contents import LOCK_FILE, SITE_PACKAGES
from serve.packaging.lock import parse_lock
from serve.provenance.licences import Distribution, read_metadata
from serve.provenance.names import DECODE_ERRORS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from scoring.packages.reading import Package
    from scoring.packages.storage import Blobs
    from serve.packaging.lock import LockedPackage

# Of what is kept in the cache: raise it when more is read.
FORMAT = 1
MAX_DOCUMENT_BYTES = 4 << 20
MAX_MODEL_FILES = 1000
_PIECE_BYTES = 1 << 20
_SITE = f"{IMAGE_ROOT}/{SITE_PACKAGES}/"
_LOCK = f"{IMAGE_ROOT}/{LOCK_FILE}"
_BUNDLE = f"{IMAGE_ROOT}/{BUNDLE_FILE}"
_MODEL = f"{IMAGE_ROOT}/model/"


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


class ModelFile(msgspec.Struct, frozen=True, order=True):
    """A file of the model layer: its path below `model/`, its digest and its size."""

    path: str
    digest: str
    size: int


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


class _EnvironmentFacts(msgspec.Struct, frozen=True):
    lock: str
    distributions: tuple[Distribution, ...]


class _ModelFacts(msgspec.Struct, frozen=True):
    bundle: Bundle
    files: tuple[ModelFile, ...]


_Found = TypeVar("_Found", _EnvironmentFacts, _ModelFacts)


class _Read(NamedTuple, Generic[_Found]):
    kind: type[_Found]
    function: Callable[[PackageLayer, Blobs], _Found]


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
    environment = _facts(layers["env"], blobs, cache, _Read(_EnvironmentFacts, _read_environment))
    model = _facts(layers["model"], blobs, cache, _Read(_ModelFacts, _read_model))
    return _inventory(package, layers, environment, model)


def _inventory(
    package: Package,
    layers: dict[str, PackageLayer],
    environment: _EnvironmentFacts,
    model: _ModelFacts,
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


def _components(environment: _EnvironmentFacts) -> tuple[Component, ...]:
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


def _facts(layer: PackageLayer, blobs: Blobs, cache: Path, read: _Read[_Found]) -> _Found:
    """What a reader finds in a layer, from the cache where it was found before."""
    path = cache / f"{FORMAT}-{digests.parse(layer.digest)}.json"
    with contextlib.suppress(OSError, msgspec.DecodeError, msgspec.ValidationError):
        return msgspec.json.decode(path.read_bytes(), type=read.kind)
    with _reading(layer):
        found = read.function(layer, blobs)
    with durable.storage_errors("the cache of inventories"):
        cache.mkdir(parents=True, exist_ok=True)
    durable.write_bytes(path, msgspec.json.encode(found, order="sorted"))
    return found


def _read_environment(layer: PackageLayer, blobs: Blobs) -> _EnvironmentFacts:
    lock, distributions = "", []
    for member, archive in _files(layer, blobs):
        if member.name == _LOCK:
            lock = _content(archive, member).decode("utf-8", "replace")
        elif _is_metadata(member.name):
            distributions.append(read_metadata(_content(archive, member)))
    return _EnvironmentFacts(lock, tuple(sorted(distributions)))


def _is_metadata(name: str) -> bool:
    folder, _, file = name.removeprefix(_SITE).partition("/")
    return name.startswith(_SITE) and folder.endswith(".dist-info") and file == "METADATA"


def _read_model(layer: PackageLayer, blobs: Blobs) -> _ModelFacts:
    bundle: Bundle | None = None
    files = []
    for member, archive in _files(layer, blobs):
        if member.name == _BUNDLE:
            bundle = _decode_bundle(_content(archive, member), layer)
        elif member.name.startswith(_MODEL):
            found = _digest(archive, member)
            files.append(ModelFile(member.name.removeprefix(_MODEL), found, member.size))
    if bundle is None:
        raise PackagingError(f"The layer {layer.digest} has no {BUNDLE_FILE}.")
    return _ModelFacts(bundle, tuple(sorted(files)))


def _decode_bundle(content: bytes, layer: PackageLayer) -> Bundle:
    try:
        return msgspec.json.decode(content, type=Bundle)
    except DECODE_ERRORS as error:
        raise PackagingError(f"{BUNDLE_FILE} of the layer {layer.digest}: {error}.") from error


def _files(layer: PackageLayer, blobs: Blobs) -> Iterator[tuple[tarfile.TarInfo, tarfile.TarFile]]:
    """The regular files of a layer, in one pass over bytes that are checked first."""
    path = blobs.path(layer.digest)
    with path.open("rb") as raw:
        if f"sha256:{hashlib.file_digest(raw, 'sha256').hexdigest()}" != layer.digest:
            raise DigestMismatchError(
                f"The stored blob {layer.digest} is damaged.",
                hint="Build the package again, or pull it from where it came from.",
            )
    with gzip.open(path) as stream, tarfile.open(fileobj=stream, mode="r|") as archive:
        for member in archive:
            if member.isfile():
                yield member, archive


@contextlib.contextmanager
def _reading(layer: PackageLayer) -> Iterator[None]:
    try:
        yield
    except (OSError, EOFError, zlib.error, tarfile.TarError) as error:
        raise PackagingError(f"The layer {layer.digest} cannot be read: {error}.") from error


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    if member.size > MAX_DOCUMENT_BYTES:
        raise PackagingError(f"{member.name} is too large for what it should be.")
    file = archive.extractfile(member)
    return file.read() if file else b""


def _digest(archive: tarfile.TarFile, member: tarfile.TarInfo) -> str:
    file = archive.extractfile(member)
    assert file is not None
    return digests.of_chunks(iter(lambda: file.read(_PIECE_BYTES), b""))

"""Images of packages: put on a base, written to files, loaded into engines, read back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from scoring.errors import NotFoundError, UsageError
from scoring.packages import platformindex
from scoring.packages.documents import PREFIX
from scoring.packages.platformindex import this_platform
from scoring.packages.reading import read_package
from serve.packaging.images.finding import BaseFinder
from serve.packaging.images.imageset import ImageSet, compose_all
from serve.registry.records import Blob

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from scoring.packages.reading import Package as Contents
    from serve.packaging.images.bases import Base
    from serve.packaging.images.export import Destination
    from serve.registry import Registry
    from serve.registry.records import Package


class Exported(msgspec.Struct, frozen=True):
    """What an export made.

    Attributes:
        digest: Of the image, or of the index of several.
        package: Of the package in it.
        destination: Where it went.
        platforms: Of the images.
        size: Of the image, compressed.
        written: Bytes that were written or sent; less than `size` where some were there.
    """

    digest: str
    package: str
    destination: str
    platforms: tuple[str, ...]
    size: int
    written: int


class Images:
    """The images of a workspace's packages.

    Args:
        registry: The workspace's.
    """

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def compose(
        self, package: Package, *, base: str | None = None, platform: str | None = None
    ) -> ImageSet:
        """Puts a package on a base; see `Packages.image`."""
        blobs = self._registry.blobs
        finder = BaseFinder(self._registry.location.blobs, base)

        def base_for(of: str, digest: str) -> Base:
            return finder.base(of, read_package(digest, blobs).annotations)

        wanted = platformindex.parse_platforms(platform)
        return compose_all(package.digest, base_for, blobs, platforms=wanted)

    def export(
        self,
        package: Package,
        to: str,
        *,
        kind: str | None = None,
        base: str | None = None,
        platform: str | None = None,
        tell: Callable[[str], None] = lambda _sentence: None,
    ) -> Exported:
        """Writes a package's image; see `Packages.export`."""
        from serve.packaging.images import export as exports  # noqa: PLC0415 - pushes need none

        destination = exports.parse_destination(to, kind)
        engine = destination.kind in exports.ENGINES
        images = self._for_destination(package, base, platform, engine=engine)
        tell(f"Writing {images.digest} to {destination}")
        written = _load(images, destination) if engine else exports.export(images, destination)
        return Exported(
            digest=images.digest,
            package=images.package.digest,
            destination=str(destination),
            platforms=images.platforms,
            size=images.size,
            written=written,
        )

    def take(self, place: str, *, platform: str | None = None) -> Package:
        """Reads a package back from a layout or archive; see `Packages.take`."""
        from serve.packaging.images import importing as imports  # noqa: PLC0415 - as above

        layout, root = imports.open_layout(place)
        with self._registry.blobs.hold():
            digest = imports.take_package(layout, root, self._registry.blobs, platform)
            return register_package(self._registry, digest)

    def _for_destination(
        self,
        package: Package,
        base: str | None,
        platform: str | None,
        *,
        engine: bool,
    ) -> ImageSet:
        """An engine takes the image of its machine's platform where none is named."""
        index = platformindex.package_manifests(package.digest, self._registry.blobs)
        if index is not None and platform is None and engine:
            platform = this_platform()
        return self.compose(package, base=base, platform=platform)


def register_package(registry: Registry, digest: str) -> Package:
    """Records a package whose bytes are in the store, as its own documents describe it.

    The model's name is kept as a label where the workspace has no such version of it. Call it while
    the store is held (`BlobStore.hold`).

    Args:
        registry: The workspace's.
        digest: Of its manifest, or of the index of several platforms.

    Raises:
        NotFoundError: A blob is not in the store.
    """
    blobs = registry.blobs
    index = platformindex.package_manifests(digest, blobs)
    if index is None:
        return _register(registry, digest, [read_package(digest, blobs)], ())
    manifests = tuple(Blob(digest=entry.digest, size=entry.size) for entry in index.manifests)
    packages = [read_package(entry.digest, blobs) for entry in index.manifests]
    for package in packages:
        _register(registry, package.digest, [package], ())
    return _register(registry, digest, packages, manifests)


def _register(
    registry: Registry, digest: str, packages: Sequence[Contents], manifests: tuple[Blob, ...]
) -> Package:
    listed = {blob.digest: blob for blob in manifests}
    for package in packages:
        config = package.config
        listed[config.digest] = Blob(digest=config.digest, size=config.size)
        for layer in package.layers:
            listed[layer.digest] = Blob(digest=layer.digest, size=layer.size)
    annotations = packages[0].annotations
    model = annotations.get(PREFIX + "model.name") or None
    version = annotations.get(PREFIX + "model.version", "")
    number = int(version) if version.isascii() and version.isdigit() else None
    hashes = {package.annotations.get(PREFIX + "environment.hash") for package in packages}
    return registry.packages.register(
        digest,
        list(listed.values()),
        model=model,
        model_version=number if _is_known(registry, model, number) else None,
        environment=hashes.pop() if len(hashes) == 1 else None,
        platform=",".join(sorted(package.platform for package in packages)),
    )


def _is_known(registry: Registry, model: str | None, version: int | None) -> bool:
    if not model or not version:
        return False
    try:
        registry.models.get(f"{model}:{version}")
    except NotFoundError:
        return False
    return True


def _load(images: ImageSet, to: Destination) -> int:
    """Loads an image into an engine, without the layers that it has."""
    from serve.engines.finding import find_engine  # noqa: PLC0415 - for engines only

    if len(images.images) != 1:
        raise UsageError("An engine takes one platform.", hint="Choose it with --platform.")
    with find_engine("podman" if to.kind == "podman" else "docker") as engine:
        return engine.load(images.images[0], [to.name]).sent

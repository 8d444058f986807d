"""Packages of several platforms: an index of packages, and the index of their images."""

from __future__ import annotations

import contextlib
import io
import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, BinaryIO

from scoring import digest as digests
from scoring.errors import NotFoundError, PackagingError
from scoring.packages.documents import INDEX_TYPE, PACKAGE, Descriptor, Index, canonical_json
from scoring.packages.platformindex import package_manifests
from serve.packaging.images.compose import Image, compose

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from scoring.packages.storage import Blobs
    from serve.packaging.images.bases import Base


@dataclass(frozen=True)
class ImageSet:
    """What a package becomes on bases: an image, or an index of one for each platform.

    Attributes:
        digest: Of the image, or of the index: the name to deploy by.
        document: The manifest or index, as JSON.
        images: In the order of the index.
        package: The package's manifest, or the index of its platforms' packages.
    """

    digest: str
    document: bytes = field(repr=False)
    images: tuple[Image, ...]
    package: Descriptor
    blobs: Blobs = field(repr=False)

    @property
    def root(self) -> Descriptor:
        """The descriptor of the manifest or index."""
        if self.package.media_type != INDEX_TYPE:
            return self.images[0].root
        return Descriptor(media_type=INDEX_TYPE, digest=self.digest, size=len(self.document))

    @property
    def platforms(self) -> tuple[str, ...]:
        """`linux/amd64` and the like."""
        return tuple(image.platform for image in self.images)

    @property
    def size(self) -> int:
        """Of all that belongs to it, compressed."""
        return sum(descriptor.size for descriptor in self.descriptors())

    def image(self, platform: str) -> Image:
        """The one for a platform.

        Raises:
            PackagingError: There is none.
        """
        for image in self.images:
            if image.platform == platform:
                return image
        raise PackagingError(
            f"The package is for {', '.join(self.platforms)}, and not for {platform}.",
            hint=f"Build it with --platform {','.join((*self.platforms, platform))}.",
        )

    def descriptors(self) -> Iterator[Descriptor]:
        """All that belongs to it, each once, what is named before what names it."""
        chain = itertools.chain.from_iterable(image.descriptors() for image in self.images)
        yield from _once((*chain, self.root))

    def companions(self) -> Iterator[Descriptor]:
        """The packages' own documents, which name the same layers: a pull wants them back."""
        chain = itertools.chain.from_iterable(image.companions() for image in self.images)
        yield from _once((*chain, self.package))

    def open(self, descriptor: Descriptor) -> BinaryIO:
        """The bytes of anything that belongs to it; raises NotFoundError for anything else."""
        if descriptor.digest == self.digest:
            return io.BytesIO(self.document)
        if descriptor.digest == self.package.digest:
            return self.blobs.path(descriptor.digest).open("rb")
        for image in self.images:
            with contextlib.suppress(NotFoundError):
                return image.open(descriptor)
        raise NotFoundError(
            f"The blob {descriptor.digest} is not in the store.", hint="Build the package again."
        )

    def origins(self, digest: str) -> Sequence[object]:
        """The repositories that are known to hold a layer."""
        return [place for image in self.images for place in image.origins(digest)]


def _once(descriptors: Sequence[Descriptor]) -> Iterator[Descriptor]:
    seen = set()
    for descriptor in descriptors:
        if descriptor.digest not in seen:
            seen.add(descriptor.digest)
            yield descriptor


def compose_all(
    package_digest: str,
    base_for: Callable[[str, str], Base],
    blobs: Blobs,
    *,
    platforms: Sequence[str] = (),
) -> ImageSet:
    """Puts a package, of one platform or several, on bases.

    Args:
        package_digest: Of its manifest or index, in the store.
        base_for: Finds the base for a platform and a package's digest.
        blobs: The store.
        platforms: Only these; all of the package's by default. One gives an image, no index.

    Raises:
        PackagingError: A base, or the package, is not for the platform.
    """
    index = package_manifests(package_digest, blobs)
    if index is None or len(platforms) == 1:
        digest = package_digest if index is None else _chosen(index, platforms[0])
        image = compose_one(digest, base_for, blobs, platforms)
        return ImageSet(image.digest, image.manifest, (image,), image.package, blobs)
    wanted = [entry for entry in index.manifests if not platforms or _name(entry) in platforms]
    images = tuple(compose_one(entry.digest, base_for, blobs, ()) for entry in wanted)
    content = canonical_json(
        {
            "schemaVersion": 2,
            "mediaType": INDEX_TYPE,
            "manifests": [image.root for image in images],
            "annotations": {**index.annotations, PACKAGE: package_digest},
        }
    )
    size = blobs.path(package_digest).stat().st_size
    package = Descriptor(media_type=INDEX_TYPE, digest=package_digest, size=size)
    return ImageSet(digests.of_bytes(content), content, images, package, blobs)


def compose_one(
    digest: str, base_for: Callable[[str, str], Base], blobs: Blobs, platforms: Sequence[str]
) -> Image:
    """The image of a package of one platform; raises PackagingError where another was wanted."""
    from scoring.packages.reading import read_package  # noqa: PLC0415 - beside its only use

    platform = read_package(digest, blobs).platform
    if platforms and platform not in platforms:
        raise PackagingError(
            f"The package is for {platform}, and not for {', '.join(platforms)}.",
            hint=f"Build it with --platform {','.join((platform, *platforms))}.",
        )
    return compose(digest, base_for(platform, digest), blobs)


def _chosen(index: Index, platform: str) -> str:
    from scoring.packages.platformindex import for_platform  # noqa: PLC0415 - see above

    return for_platform(index, platform)


def _name(entry: Descriptor) -> str:
    return entry.platform.name if entry.platform else ""

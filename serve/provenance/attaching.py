"""What a push attaches to images, and to the packages in them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from serve.provenance.artifacts import (
    ARTIFACT_TYPES,
    CYCLONEDX_TYPE,
    PROVENANCE_TYPE,
    SPDX_TYPE,
    Subject,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from serve.distribution.referrers import Referrer
    from serve.packaging.images.compose import Image
    from serve.provenance.artifacts import Artifact
    from serve.registry import Registry
    from serve.registry.records import Referrer as Kept

_SIGNATURES = frozenset(ARTIFACT_TYPES.values())


class ImageAttachments:
    """SBOMs and provenance of images; of packages, what is attached to them here besides.

    Nothing is written, or read, that is attached already.

    Args:
        registry: The workspace's.
        images: Those that are pushed; none where a package goes by itself.
        packages: The digests of packages and of indexes of packages that are pushed.

    Attributes:
        signs: Whether packages have signatures here that the registry lacks. They have a place of
            cosign's besides, and so are not among what is missing.
    """

    def __init__(
        self, registry: Registry, images: Sequence[Image], packages: Sequence[str]
    ) -> None:
        self._registry = registry
        self._images = images
        kept = {digest: registry.referrers.list(digest) for digest in packages}
        self._built = {
            image.package.digest
            for image in images
            if any(map(_is_provenance, kept.get(image.package.digest, ())))
        }
        # What an image's provenance says of its package need not be said a second time.
        self._kept = {
            digest: [each for each in found if not (digest in self._built and _is_provenance(each))]
            for digest, found in kept.items()
        }
        self.signs = False

    @property
    def subjects(self) -> tuple[str, ...]:
        """What is attached to: all images; those packages that have anything."""
        return (
            *(image.digest for image in self._images),
            *(digest for digest, kept in self._kept.items() if kept),
        )

    def missing(self, listed: Mapping[str, Sequence[Referrer]]) -> tuple[Artifact, ...]:
        """What the subjects lack; see `serve.distribution.attaching.Attachments`."""
        made: list[Artifact] = []
        for image in self._images:
            made += self._of_image(image, listed[image.digest])
        for package, kept in self._kept.items():
            if kept:
                made += self._of_package(package, kept, listed[package])
        return tuple(made)

    def _of_image(self, image: Image, there: Sequence[Referrer]) -> Sequence[Artifact]:
        wanted = {SPDX_TYPE, CYCLONEDX_TYPE}
        if image.package.digest in self._built:
            wanted.add(PROVENANCE_TYPE)
        if wanted <= {each.artifact_type for each in there}:
            return ()
        from serve.provenance import local  # noqa: PLC0415 - only where something is missing
        from serve.provenance.inventory import BaseFact  # noqa: PLC0415

        found = local.documents(
            self._registry,
            image.package.digest,
            image=Subject(image.digest, len(image.manifest)),
            base=BaseFact(image.base.name, image.base.digest),
        )
        known = {each.digest for each in there}
        return [each for each in found.artifacts if each.digest not in known]

    def _of_package(
        self, package: str, kept: Sequence[Kept], there: Sequence[Referrer]
    ) -> Sequence[Artifact]:
        known = {each.digest for each in there}
        missing = {each.digest: each for each in kept if each.digest not in known}
        if not missing:
            return ()
        self.signs |= any(each.artifact_type in _SIGNATURES for each in missing.values())
        from serve.provenance import local  # noqa: PLC0415 - see above

        wanted = [each for each in missing.values() if each.artifact_type not in _SIGNATURES]
        return local.kept_artifacts(self._registry, package, wanted)


def _is_provenance(kept: Kept) -> bool:
    return kept.artifact_type == PROVENANCE_TYPE

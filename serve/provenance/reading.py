"""What is read of attachments beside `remote`: images under tags, and what is told of packages."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, BinaryIO

from scoring import digest as digests
from scoring.errors import NotFoundError
from scoring.packages.documents import PACKAGE
from serve.distribution.content import Descriptor
from serve.distribution.documents import parse_document
from serve.distribution.referrers import list_referrers
from serve.provenance import artifacts, checks, slsa

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from serve.distribution.client import RegistryClient
    from serve.distribution.documents import Document
    from serve.distribution.reference import Reference
    from serve.provenance.artifacts import Part, TagImage


def read_part(client: RegistryClient, part: Part) -> bytes:
    """A blob that an artifact names, checked against its digest."""
    return client.read_blob(Descriptor(part.media_type, part.digest, part.size))


def restored_package(
    client: RegistryClient, image: Document, package: str
) -> tuple[Document, bytes] | None:
    """The package in an image that was copied without it, made again from the image.

    Args:
        client: The image's repository.
        image: Its manifest.
        package: The digest that the image names: what is made has it, or nothing is.

    Returns:
        The package's manifest and its configuration; None where they cannot be made exactly.
    """
    from serve.packaging.images.restoring import restore  # noqa: PLC0415 - for copies only

    made = restore(image.data, client.read_blob)
    if made is None or package not in made:
        return None
    found = parse_document(made[package], "", f"the package {package}")
    return found, made[found.blobs[0].digest]


def told_of_packages(
    client: RegistryClient, images: Iterable[Document]
) -> Iterator[tuple[str, bytes]]:
    """What the provenance of each image says of the package in it.

    Args:
        client: The images' repository.
        images: Their manifests.

    Returns:
        Digest of a package and its own statement.

    Raises:
        VerificationError: What is attached is no statement.
    """
    for image in images:
        package = image.annotations.get(PACKAGE, "")
        if package and package != image.digest:
            yield from _told_of(client, package, image.digest)


def _told_of(client: RegistryClient, package: str, image: str) -> Iterator[tuple[str, bytes]]:
    found = checks.Found(image)
    for entry in list_referrers(client, image, artifacts.PROVENANCE_TYPE):
        manifest = artifacts.parse(client.manifest(entry.digest).data)
        found.add(manifest, lambda part: read_part(client, part))
    for document in found.evidence().documents:
        statement = slsa.for_package(document.content, package)
        if statement is not None:
            yield package, statement


class TagDocuments:
    """An image of signatures, for a push: its layers are in the registry already.

    Args:
        image: What is under one of cosign's tags.
    """

    def __init__(self, image: TagImage) -> None:
        self._documents = {digests.of_bytes(each): each for each in (image.manifest, image.config)}

    def open(self, descriptor: Descriptor) -> BinaryIO:
        """Manifest or configuration.

        Raises:
            NotFoundError: It is a signature, which should be in the registry.
        """
        try:
            return io.BytesIO(self._documents[descriptor.digest])
        except KeyError:
            raise NotFoundError(
                f"The registry has lost {descriptor.digest}, which an older signature names.",
                hint="Delete the signatures that are there, and sign again.",
            ) from None

    def origins(self, digest: str) -> Sequence[Reference]:  # noqa: ARG002 - a protocol's
        """None: it is all new."""
        return ()

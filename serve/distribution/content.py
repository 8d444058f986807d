"""What transfers move: descriptors, and where the bytes that they name come from."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, BinaryIO, Protocol

from scoring import digest as digests
from scoring.packages.documents import Descriptor as Descriptor  # noqa: PLC0414 - named here, too
from serve.distribution.reference import Reference

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from serve.registry.blobs import BlobStore


class Content(Protocol):
    """Where a push takes bytes from."""

    def open(self, descriptor: Descriptor) -> BinaryIO:
        """The bytes; asked for only where the registry lacks them and nobody could mount them.

        They may be fetched from elsewhere first. Asked again where an upload begins again.
        """
        ...

    def origins(self, digest: str) -> Sequence[Reference]:
        """Repositories that are known to hold it, to mount it from."""
        ...


class StoredContent:
    """The content of a blob store, and of documents that are in memory.

    Args:
        blobs: The store.
        documents: Digest to bytes of what is not in the store.
        sources: Repositories that may hold any of it.
    """

    def __init__(
        self,
        blobs: BlobStore,
        documents: Mapping[str, bytes] | None = None,
        sources: Sequence[Reference] = (),
    ) -> None:
        self._blobs = blobs
        self._documents = documents or {}
        self._sources = tuple(sources)

    def open(self, descriptor: Descriptor) -> BinaryIO:
        """The bytes, unchecked; raises NotFoundError where they are not in the store."""
        document = self._documents.get(descriptor.digest)
        if document is not None:
            return io.BytesIO(document)
        return self._blobs.open(descriptor.digest)

    def origins(self, digest: str) -> Sequence[Reference]:  # noqa: ARG002 - the same for all
        """The repositories that were named."""
        return self._sources


def describe(data: bytes, media_type: str, **annotations: str) -> Descriptor:
    """The descriptor of bytes in memory."""
    return Descriptor(
        media_type=media_type,
        digest=digests.of_bytes(data),
        size=len(data),
        annotations=annotations,
    )

"""Attaches documents to images: all blobs, then all manifests, then each list once."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Protocol

from scoring import digest as digests
from scoring.errors import UsageError
from serve.distribution.documents import OCI_MANIFEST, Document, parse_document
from serve.distribution.progress import Progress, side_by_side
from serve.distribution.referrers import InMemory, Listed, Referrer, enlist, entry_of
from serve.distribution.uploads import Upload

if TYPE_CHECKING:
    from collections.abc import Callable

    from serve.distribution.client import RegistryClient
    from serve.distribution.content import Descriptor
    from serve.distribution.memory import Memory


class Attachment(Protocol):
    """A manifest that names a subject, with all that it names itself."""

    @property
    def manifest(self) -> bytes:
        """Its bytes."""
        ...

    @property
    def blobs(self) -> Sequence[bytes]:
        """Configuration and layers; none is large."""
        ...

    @property
    def lasting(self) -> bool:
        """Whether other subjects have the same blobs: they may be in the registry already."""
        ...


class Attachments(Protocol):
    """What a push attaches to what it brings."""

    @property
    def subjects(self) -> Sequence[str]:
        """The digests of what is attached to."""
        ...

    def missing(self, listed: Mapping[str, Sequence[Referrer]]) -> Sequence[Attachment]:
        """What the subjects lack.

        Args:
            listed: Subject to what is attached to it in the registry.
        """
        ...


class Batch:
    """Attachments on their way to one repository.

    Args:
        client: The repository; its actions are `PUSH`.
        attachments: What is sent.
        memory: Of uploads that were begun.
        progress: Counts what is sent.

    Raises:
        UsageError: A manifest has no subject.
        RegistryError: It is no manifest.
    """

    def __init__(
        self,
        client: RegistryClient,
        attachments: Sequence[Attachment],
        memory: Memory,
        progress: Progress,
    ) -> None:
        self._client = client
        self._memory = memory
        self._progress = progress
        self._documents = [_parse(each.manifest) for each in attachments]
        self._lasting = {
            blob.digest
            for document, each in zip(self._documents, attachments, strict=True)
            for blob in document.blobs
            if each.lasting
        }
        self._content = InMemory(
            {digests.of_bytes(blob): blob for each in attachments for blob in each.blobs}
        )

    def uploads(self) -> list[Callable[[], object]]:
        """A call for each blob; they may be made side by side.

        A blob of one attachment is as new as that one. What several share (the empty
        configuration, say) is shared with those of earlier pushes, and so asked for first, as is
        what is said to last.
        """
        named = [blob for document in self._documents for blob in document.blobs]
        count = Counter(blob.digest for blob in named)
        shared = {digest for digest, times in count.items() if times > 1} | self._lasting
        unique = {blob.digest: blob for blob in named}
        return [partial(self._upload, blob, blob.digest in shared) for blob in unique.values()]

    def finish(self, listed: Mapping[str, Listed] | None = None) -> None:
        """Sends the manifests, when all blobs are there, and sees that each is listed.

        Args:
            listed: What was attached to the subjects a moment ago, where that is known.

        Raises:
            RegistryError: The registry refuses.
        """
        threads = self._client.limits.threads
        alone = side_by_side(self._put, self._documents, threads=threads, progress=self._progress)
        unlisted: dict[str, list[Referrer]] = defaultdict(list)
        for document, lists in zip(self._documents, alone, strict=True):
            if not lists:
                unlisted[document.subject].append(entry_of(document))
        known = listed or {}
        side_by_side(
            lambda subject: enlist(self._client, subject, unlisted[subject], known.get(subject)),
            [*unlisted],
            threads=threads,
            progress=self._progress,
        )

    def _put(self, document: Document) -> bool:
        self._progress.add(len(document.data))
        return self._client.put_referrer(document.data, document.descriptor.media_type)

    def _upload(self, blob: Descriptor, shared: bool) -> None:
        if not (shared and self._client.has_blob(blob)):
            Upload(self._client, blob, self._content, self._memory, self._progress).run()


def _parse(manifest: bytes) -> Document:
    document = parse_document(manifest, OCI_MANIFEST, "the manifest to attach")
    if not document.subject:
        raise UsageError("The manifest to attach has no subject.")
    return document

"""Pulls images into a blob store: documents first, then the blobs that are not there yet."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

import msgspec

from scoring.errors import NotFoundError, RegistryError
from serve.distribution.client import RegistryClient
from serve.distribution.content import Descriptor
from serve.distribution.documents import MANIFESTS, Document, parse_document
from serve.distribution.mirrors import ask_first
from serve.distribution.options import Options
from serve.distribution.progress import Progress, side_by_side

if TYPE_CHECKING:
    from serve.distribution.hosts import Place
    from serve.distribution.reference import Reference
    from serve.registry.blobs import BlobStore

Tell = Callable[[int], None]
Rebuild = Callable[[bytes, Callable[[Descriptor], bytes]], Mapping[str, bytes] | None]


class PullResult(msgspec.Struct, frozen=True, kw_only=True):
    """What a pull did.

    Attributes:
        reference: Where it came from, with its digest; a mirror, perhaps.
        named: The digest of the document that the reference named.
        documents: The manifests and indexes that are in the store now, the root first.
        bytes_received: Of blobs and documents.
        blobs_fetched: How many blobs were received,
        existing: and how many were in the store before.
        seconds: How long it took.
    """

    reference: str
    named: str
    documents: tuple[Document, ...]
    bytes_received: int
    blobs_fetched: int
    existing: int
    seconds: float

    @property
    def root(self) -> Document:
        """The document that names all others."""
        return self.documents[0]


class PullPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What a pull would fetch.

    Attributes:
        reference: Where from, with its digest.
        named: The digest of the document that the reference names.
        documents: All that would be stored, the root first.
        missing: The blobs that the store lacks.
        existing: How many it has.
        bytes_missing: Of the missing.
    """

    reference: str
    named: str
    documents: tuple[Document, ...]
    missing: tuple[Descriptor, ...]
    existing: int
    bytes_missing: int


def pull(
    reference: Reference,
    blobs: BlobStore,
    *,
    platform: str | None = None,
    instead: str = "",
    rebuild: Rebuild | None = None,
    options: Options | None = None,
    progress: Tell | None = None,
) -> PullResult:
    """Brings an image, or an index of images, into the store; every digest is checked.

    Who records what was pulled keeps `BlobStore.hold` until then.

    Args:
        reference: Where it is.
        blobs: Where it goes; what is there is not fetched.
        platform: `linux/amd64`: of an index, this image alone; by default all.
        instead: An annotation: of a document that has it, the one in the same repository is
            pulled whose digest it holds.
        rebuild: Makes that one, and what it names, from the document and what this names, where
            the repository lacks it; digest to bytes, or None.
        options: How.
        progress: Called with the number of bytes that were received since the last call.

    Raises:
        NotFoundError: There is no such image, or none for the platform.
        DigestMismatchError: Bytes are not what their digest says; they are not kept.
        RegistryError: The registry refuses, or answers what is no answer.
        UnreachableError, RegistryBusyError: It does not answer, or not now.
        StorageFullError: No space is left; blobs that came before are kept for the next time.
    """
    options = options or Options()

    def run(place: Place) -> PullResult:
        return _Pull(place, blobs, platform, instead, rebuild, options, progress).run()

    return ask_first(reference, options.hosts, run)


def plan_pull(
    reference: Reference,
    blobs: BlobStore,
    *,
    platform: str | None = None,
    instead: str = "",
    rebuild: Rebuild | None = None,
    options: Options | None = None,
) -> PullPlan:
    """What `pull` would fetch: documents are read, nothing is stored. Raises like it."""
    options = options or Options()

    def plan(place: Place) -> PullPlan:
        return _Pull(place, blobs, platform, instead, rebuild, options, None).plan()

    return ask_first(reference, options.hosts, plan)


class _Pull:
    def __init__(
        self,
        place: Place,
        blobs: BlobStore,
        platform: str | None,
        instead: str,
        rebuild: Rebuild | None,
        options: Options,
        tell: Tell | None,
    ) -> None:
        self._reference = place.reference
        self._blobs = blobs
        self._platform = platform
        self._instead = instead
        self._rebuild = rebuild
        self._made: dict[str, bytes] = {}
        self._options = options
        self._progress = Progress(tell)
        self._client = RegistryClient(
            place, hosts=options.hosts, logins=options.logins, limits=options.limits
        )

    def run(self) -> PullResult:
        start = time.monotonic()
        with self._client:
            plan = self._look()
            side_by_side(
                self._fetch,
                sorted(plan.missing, key=lambda each: -each.size),
                threads=self._options.limits.threads,
                progress=self._progress,
            )
        with self._blobs.batch() as batch:
            for document in plan.documents:
                batch.put_bytes(document.data)
                for digest in (each.digest for each in document.blobs if each.digest in self._made):
                    batch.put_bytes(self._made[digest])
        return PullResult(
            reference=plan.reference,
            named=plan.named,
            documents=plan.documents,
            bytes_received=self._progress.bytes,
            blobs_fetched=len(plan.missing),
            existing=plan.existing,
            seconds=round(time.monotonic() - start, 3),
        )

    def plan(self) -> PullPlan:
        with self._client:
            return self._look()

    def _look(self) -> PullPlan:
        named = self._document(self._reference.target)
        documents = self._below(self._real(named))
        wanted = {blob.digest: blob for each in documents for blob in each.blobs}
        missing = tuple(blob for blob in wanted.values() if not self._has(blob))
        return PullPlan(
            reference=str(self._reference.at(named.digest)),
            named=named.digest,
            documents=tuple(documents),
            missing=missing,
            existing=len(wanted) - len(missing),
            bytes_missing=sum(each.size for each in missing),
        )

    def _document(self, target: str) -> Document:
        if target in self._made:
            return parse_document(self._made[target], "", f"the package {target}")
        document = self._client.manifest(target)
        self._progress.add(len(document.data))
        return document

    def _real(self, document: Document) -> Document:
        digest = document.annotations.get(self._instead, "") if self._instead else ""
        if not digest:
            return document
        try:
            return self._document(digest)
        except NotFoundError as error:
            made = self._rebuild(document.data, self._read) if self._rebuild else None
            if made is None or digest not in made:
                raise NotFoundError(
                    f"{self._reference} is an image whose package {digest} is not beside it.",
                    hint="A copy by another tool leaves it out: push the package there with "
                    "'fieldpost package push', or pull it from where it was pushed.",
                ) from error
            self._made |= made
        return self._document(digest)

    def _read(self, descriptor: Descriptor) -> bytes:
        """A document of an image, or its configuration."""
        if descriptor.media_type in MANIFESTS:
            return self._document(descriptor.digest).data
        content = self._client.read_blob(descriptor)
        self._progress.add(len(content))
        return content

    def _below(self, root: Document) -> list[Document]:
        """The root and all that it names for the platform."""
        found = {root.digest: root}
        level = [root]
        for _ in range(self._options.limits.depth):
            wanted = [child for each in level for child in self._children(each)]
            new = {child.digest: child for child in wanted if child.digest not in found}
            if len(found) + len(new) > self._options.limits.manifests:
                raise RegistryError(f"{self._reference} is an index of too many images.")
            level = [self._real(self._document(digest)) for digest in new]
            found |= {each.digest: each for each in level}
        return list(found.values())

    def _children(self, document: Document) -> list[Descriptor]:
        if self._platform is None or not document.manifests:
            return list(document.manifests)
        chosen = [each for each in document.manifests if _fits(each, self._platform)]
        if not chosen:
            there = sorted({each.platform.name for each in document.manifests if each.platform})
            raise NotFoundError(
                f"{self._reference} has nothing for {self._platform}.",
                hint=f"It is there for {', '.join(there) or 'no platform'}.",
            )
        return chosen[:1]

    def _has(self, blob: Descriptor) -> bool:
        if blob.digest in self._made:
            return True
        try:
            return self._blobs.path(blob.digest).stat().st_size == blob.size
        except (NotFoundError, OSError):
            return False

    def _fetch(self, blob: Descriptor) -> None:
        with contextlib.closing(self._client.blob(blob)) as pieces:
            self._blobs.put_stream(self._counted(pieces))

    def _counted(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        for piece in pieces:
            self._progress.add(len(piece))
            yield piece


def _fits(descriptor: Descriptor, platform: str) -> bool:
    """Whether an entry is for `OS/ARCHITECTURE[/VARIANT]`."""
    if descriptor.platform is None:
        return False
    name = descriptor.platform.name
    return platform in {name, f"{name}/{descriptor.platform.variant}"}

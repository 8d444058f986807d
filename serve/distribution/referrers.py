"""What is attached to an image in a registry: signatures, SBOMs, provenance.

Registries list the manifests whose subject an image is (OCI 1.1). Older ones do not: there an index
under the tag `sha256-HEX` of the image's digest lists them, which who attaches keeps up to date.
"""

from __future__ import annotations

import io
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, BinaryIO

import msgspec

from scoring import digest as digests
from scoring.errors import NotFoundError, RegistryDeniedError, RegistryError, UsageError
from serve.distribution.content import Descriptor
from serve.distribution.documents import OCI_INDEX, OCI_MANIFEST, Document, parse_document, to_json
from serve.distribution.memory import Memory
from serve.distribution.progress import Progress
from serve.distribution.uploads import Upload

if TYPE_CHECKING:
    from serve.distribution.client import RegistryClient
    from serve.distribution.reference import Reference

_ROUNDS = 8
_FRESH_S = 2.0


class Referrer(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    """An entry of the list.

    Attributes:
        media_type: Of the manifest.
        digest: Of the manifest.
        size: Of the manifest.
        artifact_type: What it is; some registries write null.
        annotations: Those of the manifest; None for none.
    """

    media_type: str
    digest: str
    size: int
    artifact_type: str | None = ""
    annotations: dict[str, str] | None = None


class Attached(msgspec.Struct, frozen=True):
    """A referrer with its content.

    Attributes:
        document: Its manifest.
        blobs: Digest to bytes of configuration and layers.
    """

    document: Document
    blobs: dict[str, bytes]


class Listed(msgspec.Struct, frozen=True):
    """What was attached to an image at some moment.

    Attributes:
        entries: Each once.
        by_tag: Whether its tag says so, for want of a registry's own list.
        at: When, by the monotonic clock.
    """

    entries: tuple[Referrer, ...]
    by_tag: bool
    at: float


class _List(msgspec.Struct, rename="camel"):
    manifests: tuple[Referrer, ...] | None = None
    media_type: str = ""


def tag_of(digest: str) -> str:
    """The tag of the list where a registry keeps none: `sha256-HEX`."""
    return f"sha256-{digests.parse(digest)}"


def list_referrers(
    client: RegistryClient, digest: str, artifact_type: str = ""
) -> tuple[Referrer, ...]:
    """What is attached to an image.

    Args:
        client: The image's repository.
        digest: The image's.
        artifact_type: Only these; all by default.

    Raises:
        RegistryError: The registry's answer is no list.
        UnreachableError, RegistryBusyError: It does not answer, or not now.
    """
    return tuple(
        each
        for each in look_up(client, digest).entries
        if not artifact_type or each.artifact_type == artifact_type
    )


def look_up(client: RegistryClient, digest: str) -> Listed:
    """What is attached to an image, and who says so; raises like `list_referrers`."""
    found = _listed(client, digest) if client.lists_referrers is not False else None
    by_tag = found is None
    if found is None:
        found = _tagged(client, digest)
    unique = {each.digest: each for each in found if digests.is_digest(each.digest)}
    return Listed(tuple(unique.values()), by_tag=by_tag, at=time.monotonic())


def attach(
    client: RegistryClient, manifest: bytes, blobs: Sequence[bytes], memory: Memory | None = None
) -> Referrer:
    """Uploads a manifest with its blobs, and sees that it is listed with its subject.

    Args:
        client: The subject's repository; its actions are `PUSH`.
        manifest: Names a subject.
        blobs: All that the manifest names; those that are there are not sent.
        memory: Of uploads that were begun.

    Raises:
        UsageError: The manifest has no subject, or a blob is missing.
        RegistryError: The registry refuses.
    """
    document = parse_document(manifest, OCI_MANIFEST, "the manifest to attach")
    if not document.subject:
        raise UsageError("The manifest to attach has no subject.")
    content = InMemory({digests.of_bytes(each): each for each in blobs})
    for blob in document.blobs:
        if not client.has_blob(blob):
            Upload(client, blob, content, memory or Memory(None), Progress()).run()
    entry = entry_of(document)
    if not client.put_referrer(manifest, entry.media_type):
        enlist(client, document.subject, [entry])
    return entry


def entry_of(document: Document) -> Referrer:
    """How a manifest is listed."""
    described = document.descriptor
    return Referrer(
        described.media_type,
        described.digest,
        described.size,
        document.artifact_type,
        document.annotations or None,
    )


def fetch(client: RegistryClient, referrer: Referrer) -> Attached:
    """Downloads a referrer with its blobs, checked; none may be larger than a document.

    Raises:
        NotFoundError: It is gone.
        DigestMismatchError: Bytes are not what their digest says.
        RegistryError: It is too large.
    """
    document = client.manifest(referrer.digest)
    return Attached(document, {each.digest: client.read_blob(each) for each in document.blobs})


class InMemory:
    """Small blobs, by their digests."""

    def __init__(self, blobs: Mapping[str, bytes]) -> None:
        self._blobs = blobs

    def open(self, descriptor: Descriptor) -> BinaryIO:
        """The bytes; raises UsageError where they were not given."""
        try:
            return io.BytesIO(self._blobs[descriptor.digest])
        except KeyError:
            raise UsageError(f"The blob {descriptor.digest} was not given.") from None

    def origins(self, digest: str) -> Sequence[Reference]:  # noqa: ARG002 - it is new everywhere
        """None."""
        return ()


def _listed(client: RegistryClient, digest: str) -> list[Referrer] | None:
    """The registry's own list; None where it keeps none."""
    digests.parse(digest)
    found: list[Referrer] = []
    what = f"what is attached to {digest}"
    try:
        for page in client.pages(f"referrers/{digest}", _List, what, accept=OCI_INDEX):
            if page.manifests is None:
                return None
            found += page.manifests
    except NotFoundError:
        client.lists_referrers = False  # where it does, an image without any has an empty list
        return None
    except RegistryError as error:
        if error.retryable or isinstance(error, RegistryDeniedError):
            raise
        return None  # a registry, or a proxy before it, that does not know the question
    return found


def _tagged(client: RegistryClient, digest: str) -> list[Referrer]:
    try:
        document = client.manifest(tag_of(digest), OCI_INDEX)
    except NotFoundError:
        return []
    try:
        return list(msgspec.json.decode(document.data, type=_List).manifests or ())
    except (msgspec.DecodeError, msgspec.ValidationError):
        return []


def enlist(
    client: RegistryClient, subject: str, entries: Sequence[Referrer], known: Listed | None = None
) -> None:
    """Adds to the list under the tag, and looks again: another writer may have been there, too.

    Args:
        client: The subject's repository.
        subject: What the entries are attached to.
        entries: What is to be listed.
        known: What was listed; it counts while it is fresh.

    Raises:
        RegistryError: The list never keeps what is written.
    """
    fresh = known is not None and known.by_tag and time.monotonic() - known.at < _FRESH_S
    before = [*known.entries] if known is not None and fresh else _tagged(client, subject)
    for _ in range(_ROUNDS):
        there = {each.digest for each in before}
        new = [each for each in entries if each.digest not in there]
        if not new:
            return
        index = to_json({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [*before, *new]})
        written = client.put_manifest(index, OCI_INDEX, tag_of(subject))
        found = client.find_manifest(tag_of(subject), OCI_INDEX)
        if found is not None and found.digest == written:
            return
        before = _tagged(client, subject)
    raise RegistryError(
        f"{client.host} does not keep the list of what is attached to {subject}.",
        hint="Others may be attaching at the same time: run the command again.",
    )

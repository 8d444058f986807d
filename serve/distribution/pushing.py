"""Pushes whole images: every document and blob below one root, what is missing first."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Self, cast

import msgspec

from scoring.errors import RegistryError, UsageError
from serve.distribution.attaching import Attachments, Batch
from serve.distribution.client import PUSH, RegistryClient
from serve.distribution.content import Content, Descriptor
from serve.distribution.documents import Document, parse_document, require_digest
from serve.distribution.limits import Limits
from serve.distribution.options import Options
from serve.distribution.progress import Progress, side_by_side
from serve.distribution.referrers import Listed, look_up
from serve.distribution.uploads import Upload

if TYPE_CHECKING:
    from types import TracebackType

    from serve.distribution.reference import Reference

Tell = Callable[[int], None]
Beside = Sequence[tuple[Descriptor, str]]

# Layers that their makers let nobody else give away: registries have an address for them instead.
_NOT_OURS = ("nondistributable", "foreign")


class PushResult(msgspec.Struct, frozen=True, kw_only=True):
    """What a push did.

    Attributes:
        reference: Where the image is now, with its digest.
        digest: The image's.
        bytes_sent: Of blobs and documents, what had to be sent twice counted twice.
        blobs_sent: How many blobs were sent,
        mounted: were taken from another repository of the registry,
        existing: and were there before.
        bytes_existing: Their bytes, and those of the mounted.
        seconds: How long it took.
        warning: Why nothing was attached, where that failed: the image itself is there.
    """

    reference: str
    digest: str
    bytes_sent: int
    blobs_sent: int
    mounted: int
    existing: int
    bytes_existing: int
    seconds: float
    warning: str = ""


class PushPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What a push would do.

    Attributes:
        reference: Where to.
        digest: The image's.
        missing: The blobs that the registry lacks.
        existing: How many it has.
        bytes_missing: What would be sent at most: some may be mounted.
    """

    reference: str
    digest: str
    missing: tuple[Descriptor, ...]
    existing: int
    bytes_missing: int


def push(
    root: Descriptor,
    content: Content,
    to: Reference,
    *,
    beside: Beside = (),
    attachments: Attachments | None = None,
    options: Options | None = None,
    progress: Tell | None = None,
) -> PushResult:
    """Brings an image, or an index of images, to a registry: only what it lacks, its tag last.

    Whatever ends it, the registry then has whole blobs and no tag that points at what is missing;
    the same call goes on where it was.

    Args:
        root: The manifest or index.
        content: Gives documents and blobs.
        to: Repository and tag.
        beside: More manifests for the same repository, each with its tag (empty for none).
        attachments: What is attached to any of these where it is not attached yet.
        options: How.
        progress: Called with the number of bytes that were sent since the last call.

    Raises:
        DigestMismatchError: The content is not what its descriptors say.
        RegistryError: The registry refuses; `RegistryDeniedError` where a login is missing.
        UnreachableError, RegistryBusyError: It does not answer, or not now.
    """
    with _Push(root, content, to, beside, options or Options(), progress) as job:
        return job.run(attachments)


def plan_push(
    root: Descriptor,
    content: Content,
    to: Reference,
    *,
    beside: Beside = (),
    options: Options | None = None,
) -> PushPlan:
    """What `push` would send; the registry is asked and not changed. Raises like it."""
    with _Push(root, content, to, beside, options or Options(), None) as job:
        return job.plan()


class _Push:
    def __init__(
        self,
        root: Descriptor,
        content: Content,
        to: Reference,
        beside: Beside,
        options: Options,
        tell: Tell | None,
    ) -> None:
        if to.digest not in {"", root.digest}:
            raise UsageError(
                f"{to} names another image than {root.digest}.", hint="Push to a tag instead."
            )
        self._to = to
        self._content = content
        self._options = options
        self._progress = Progress(tell)
        self._root = root
        tops = [*(descriptor for descriptor, _ in beside), root]
        self._documents = _walk(tops, content, options.limits)
        self._targets = {digest: digest for digest in self._documents}
        self._targets |= {each.digest: tag for each, tag in beside if tag}
        self._targets[root.digest] = to.tag or to.target
        self._blobs = _blobs_of(self._documents.values())
        self._client = RegistryClient(
            to, actions=PUSH, hosts=options.hosts, logins=options.logins, limits=options.limits
        )

    def run(self, attachments: Attachments | None) -> PushResult:
        start = time.monotonic()
        subjects = attachments.subjects if attachments else ()
        plan, present, listed = self._look(subjects)
        entries = {subject: found.entries for subject, found in listed.items()}
        made = attachments.missing(entries) if attachments else ()
        batch = Batch(self._client, made, self._options.memory, self._progress)
        mounted = self._send(plan.missing, batch)
        # Those that are named come before those that name them; the root's tag is the last of all.
        for digest, document in self._documents.items():
            if digest not in present:
                self._progress.add(len(document.data))
                kind = document.descriptor.media_type
                self._client.put_manifest(document.data, kind, self._targets[digest])
        self._remember()
        warning = _finish(batch, listed)
        there = sum(each.size for each in self._blobs.values()) - plan.bytes_missing
        return PushResult(
            reference=plan.reference,
            digest=plan.digest,
            bytes_sent=self._progress.bytes,
            blobs_sent=len(plan.missing) - len(mounted),
            mounted=len(mounted),
            existing=plan.existing,
            bytes_existing=there + sum(each.size for each in mounted),
            seconds=round(time.monotonic() - start, 3),
            warning=warning,
        )

    def plan(self) -> PushPlan:
        return self._look()[0]

    def _look(self, subjects: Sequence[str] = ()) -> tuple[PushPlan, set[str], dict[str, Listed]]:
        """What is missing, the documents that are there, what is attached: all is asked at once."""
        questions: list[Callable[[], object]] = [
            *(partial(look_up, self._client, subject) for subject in subjects),
            *(partial(self._is_current, digest) for digest in self._documents),
            *(partial(self._client.has_blob, blob) for blob in self._blobs.values()),
        ]
        answers = iter(
            side_by_side(
                lambda ask: ask(),
                questions,
                threads=self._options.limits.threads * 2,
                progress=self._progress,
            )
        )
        listed = {subject: cast("Listed", next(answers)) for subject in subjects}
        present = {digest for digest in self._documents if next(answers)}
        missing = tuple(blob for blob in self._blobs.values() if not next(answers))
        plan = PushPlan(
            reference=str(self._to.tagged(self._targets[self._root.digest])),
            digest=self._root.digest,
            missing=missing,
            existing=len(self._blobs) - len(missing),
            bytes_missing=sum(each.size for each in missing),
        )
        return plan, present, listed

    def _is_current(self, digest: str) -> bool:
        kind = self._documents[digest].descriptor.media_type
        found = self._client.find_manifest(self._targets[digest], kind)
        return found is not None and found.digest == digest

    def _send(self, missing: Sequence[Descriptor], batch: Batch) -> list[Descriptor]:
        """Sends blobs side by side, the largest first; returns those that were mounted."""
        ordered = sorted(missing, key=lambda each: -each.size)
        uploads: list[Callable[[], object]] = [partial(self._send_one, blob) for blob in ordered]
        attached, threads = batch.uploads(), self._options.limits.threads
        done = side_by_side(
            lambda upload: upload(),
            [*uploads, *attached],
            threads=threads + min(len(attached), threads),  # documents wait for no layer
            progress=self._progress,
        )
        return [blob for blob, was in zip(ordered, done, strict=False) if was]

    def _send_one(self, blob: Descriptor) -> bool:
        upload = Upload(self._client, blob, self._content, self._options.memory, self._progress)
        return upload.run(self._origins(blob.digest))

    def _origins(self, digest: str) -> list[Reference]:
        """Where to mount from: what the content knows, then what we sent there before."""
        known = [
            *self._content.origins(digest),
            *(
                msgspec.structs.replace(self._to, repository=name, tag="", digest="")
                for name in self._options.memory.holders(self._to.registry, digest)
            ),
        ]
        fitting = {
            each.repository: each
            for each in known
            if each.registry == self._to.registry and each.repository != self._to.repository
        }
        return list(fitting.values())

    def _remember(self) -> None:
        for digest in self._blobs:
            self._options.memory.holds(self._to.registry, self._to.repository, digest)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self._client.close()


def _finish(batch: Batch, listed: Mapping[str, Listed]) -> str:
    """Attaches; what the registry refuses of that is told, since the image is there, whole."""
    try:
        batch.finish(listed)
    except RegistryError as error:
        return f"Nothing was attached to the image: {error.message}"
    return ""


def _walk(tops: Sequence[Descriptor], content: Content, limits: Limits) -> dict[str, Document]:
    """All documents by digest, each behind those that it names."""
    found: dict[str, Document] = {}

    def visit(descriptor: Descriptor, depth: int) -> None:
        if descriptor.digest in found:
            return
        if depth > limits.depth or len(found) > limits.manifests:
            raise RegistryError(f"{tops[-1].digest} is an index of too many images.")
        document = _read(descriptor, content, limits)
        for child in document.manifests:
            visit(child, depth + 1)
        found[descriptor.digest] = document

    for top in tops:
        visit(top, 0)
    return found


def _read(descriptor: Descriptor, content: Content, limits: Limits) -> Document:
    what = f"the manifest {descriptor.digest}"
    with content.open(descriptor) as stream:
        data = stream.read(limits.document_bytes + 1)
    if len(data) > limits.document_bytes:
        raise RegistryError(f"{descriptor.digest} is too large for a manifest.")
    require_digest(data, descriptor.digest, "This machine", what)
    return parse_document(data, descriptor.media_type, what)


def _blobs_of(documents: Iterable[Document]) -> dict[str, Descriptor]:
    return {
        blob.digest: blob
        for document in documents
        for blob in document.blobs
        if not any(word in blob.media_type for word in _NOT_OURS)
    }

"""Manifests and indexes as far as a transfer has to understand them: what they point at."""

from __future__ import annotations

from typing import Any

import msgspec

from scoring import digest as digests
from scoring.errors import DigestMismatchError, InvalidNameError, RegistryError
from serve.distribution.content import Descriptor

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"

MANIFESTS = frozenset({OCI_MANIFEST, DOCKER_MANIFEST})
INDEXES = frozenset({OCI_INDEX, DOCKER_LIST})
ACCEPT = ", ".join((OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_LIST))

MAX_SIZE = 1 << 40
"""Larger descriptors are refused: no layer has a terabyte."""


class Document(msgspec.Struct, frozen=True):
    """A manifest or index, as it was sent, and what it names.

    Attributes:
        data: Its bytes, which its digest is of.
        descriptor: Media type, digest, size.
        manifests: Of an index: the documents that it names.
        blobs: Of a manifest: its configuration, then its layers.
        layers: Of a manifest.
        annotations: Its own.
        subject: The digest of what it refers to; empty for none.
        artifact_type: What kind of thing it is, for a referrer.
    """

    data: bytes
    descriptor: Descriptor
    manifests: tuple[Descriptor, ...] = ()
    blobs: tuple[Descriptor, ...] = ()
    layers: tuple[Descriptor, ...] = ()
    annotations: dict[str, str] = {}
    subject: str = ""
    artifact_type: str = ""

    @property
    def digest(self) -> str:
        """The document's digest."""
        return self.descriptor.digest


class _Raw(msgspec.Struct, rename="camel"):
    schema_version: int = 0
    media_type: str = ""
    artifact_type: str | None = None
    config: Descriptor | None = None
    layers: tuple[Descriptor, ...] | None = None
    manifests: tuple[Descriptor, ...] | None = None
    subject: Descriptor | None = None
    annotations: dict[str, str] | None = None


def parse_document(data: bytes, media_type: str, what: str) -> Document:
    """Reads a manifest or index and checks each descriptor in it.

    Args:
        data: The document.
        media_type: What it came as; its own word counts where this says nothing.
        what: The document, for messages.

    Raises:
        RegistryError: It is none, or has sizes or digests that nothing can have.
    """
    try:
        raw = msgspec.json.decode(data, type=_Raw)
    except (msgspec.DecodeError, msgspec.ValidationError, RecursionError) as error:
        raise _bad(what, str(error)) from error
    kind = raw.media_type or media_type
    if raw.schema_version != 2:  # noqa: PLR2004
        raise _bad(what, "its schema version is not 2")
    if kind in INDEXES or (kind not in MANIFESTS and raw.manifests is not None):
        return _index(data, raw, kind or OCI_INDEX, what)
    if raw.config is None or raw.layers is None:
        raise _bad(what, "it names no configuration or no layers")
    return _manifest(data, raw, kind or OCI_MANIFEST, what)


def _index(data: bytes, raw: _Raw, kind: str, what: str) -> Document:
    if raw.config is not None or raw.layers:
        raise _bad(what, "it is an index and has layers")
    children = raw.manifests or ()
    for each in children:
        _check(each, what)
    return Document(
        data=data,
        descriptor=_describe(data, kind),
        manifests=children,
        annotations=raw.annotations or {},
        subject=raw.subject.digest if raw.subject else "",
        artifact_type=raw.artifact_type or "",
    )


def _manifest(data: bytes, raw: _Raw, kind: str, what: str) -> Document:
    if raw.manifests:
        raise _bad(what, "it is a manifest and an index at once")
    assert raw.config is not None
    layers = raw.layers or ()
    for each in (raw.config, *layers):
        _check(each, what)
    return Document(
        data=data,
        descriptor=_describe(data, kind),
        blobs=(raw.config, *layers),
        layers=layers,
        annotations=raw.annotations or {},
        subject=raw.subject.digest if raw.subject else "",
        artifact_type=raw.artifact_type or raw.config.media_type,
    )


def _describe(data: bytes, kind: str) -> Descriptor:
    return Descriptor(media_type=kind, digest=digests.of_bytes(data), size=len(data))


def _check(descriptor: Descriptor, what: str) -> None:
    try:
        digests.parse(descriptor.digest)
    except InvalidNameError as error:
        raise _bad(what, error.message.rstrip(".")) from error
    if not 0 <= descriptor.size <= MAX_SIZE:
        raise _bad(what, f"a part of it would have {descriptor.size} bytes")


def require_digest(data: bytes, digest: str, host: str, what: str) -> None:
    """Checks a document against the digest that it was asked for by, or came with.

    Raises:
        DigestMismatchError: It is another one.
    """
    found = digests.of_bytes(data)
    if found != digest:
        raise mismatch(host, what, digest, found)


def mismatch(host: str, what: str, digest: str, found: str) -> DigestMismatchError:
    """The error for bytes that are not what their digest says."""
    return DigestMismatchError(
        f"{host} sends other bytes for {what}: {found} instead of {digest}.",
        hint="Something between here and there, or the registry's storage, is damaged; nothing "
        "was kept. Push the image again from where it was built.",
    )


def _bad(what: str, reason: str) -> RegistryError:
    return RegistryError(
        f"{what[:1].upper()}{what[1:]} is no manifest that can be used: {reason}.",
        hint="Only OCI and Docker (schema 2) images and indexes are taken.",
    )


def to_json(document: dict[str, Any]) -> bytes:
    """A document with bytes that depend on its content alone."""
    return msgspec.json.encode(document, order="sorted")

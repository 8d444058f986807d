"""The OCI manifests that carry signatures and documents beside the image that they speak of.

An artifact names its subject (OCI 1.1 referrers). cosign's own place is a tag made of the subject's
digest, with an image whose layers are all signatures (`.sig`) or attestations (`.att`).
"""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, Literal

import msgspec

from scoring import digest as digests
from scoring.errors import VerificationError
from scoring.packages.documents import CONFIG_TYPE, MANIFEST_TYPE, canonical_json
from serve.provenance.dsse import ENVELOPE_TYPE, STATEMENT_TYPE
from serve.provenance.names import DECODE_ERRORS
from serve.provenance.simplesigning import PAYLOAD_TYPE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

EMPTY_TYPE = "application/vnd.oci.empty.v1+json"
EMPTY = b"{}"

SPDX_TYPE = "application/spdx+json"
CYCLONEDX_TYPE = "application/vnd.cyclonedx+json"
PROVENANCE_TYPE = STATEMENT_TYPE
PROVENANCE_TITLE = "provenance.json"
SIGNATURE_TYPE = "application/vnd.dev.cosign.artifact.sig.v1+json"
ATTESTATION_TYPE = "application/vnd.dev.cosign.artifact.att.v1+json"

SIGNATURE = "dev.cosignproject.cosign/signature"
PREDICATE_TYPE = "in-toto.io/predicate-type"
TITLE = "org.opencontainers.image.title"

Suffix = Literal["sig", "att"]
SUFFIXES: tuple[Suffix, ...] = ("sig", "att")
ARTIFACT_TYPES: dict[Suffix, str] = {"sig": SIGNATURE_TYPE, "att": ATTESTATION_TYPE}


class Part(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    """A descriptor in an artifact's manifest."""

    media_type: str
    digest: str
    size: int
    annotations: dict[str, str] = {}


class ArtifactManifest(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    """The manifest of an artifact, as far as it is read; an index has no configuration."""

    config: Part | None = None
    layers: tuple[Part, ...] = ()
    subject: Part | None = None
    artifact_type: str = ""
    media_type: str = ""
    annotations: dict[str, str] = {}


class Subject(msgspec.Struct, frozen=True):
    """What an artifact speaks of: a manifest.

    Attributes:
        digest: The manifest's.
        size: The manifest's.
        media_type: Of an image manifest or an image index.
    """

    digest: str
    size: int
    media_type: str = MANIFEST_TYPE


class Artifact(msgspec.Struct, frozen=True):
    """A manifest and its blobs, in memory: none is large.

    Attributes:
        manifest: Its bytes.
        blobs: Config and layers, in the manifest's order.
        subject: What it speaks of.
        artifact_type: What it is.
        lasting: Whether other subjects have the same blobs: they may be in the registry already.
    """

    manifest: bytes
    blobs: tuple[bytes, ...]
    subject: Subject
    artifact_type: str
    lasting: bool = False

    @property
    def digest(self) -> str:
        """Of the manifest."""
        return digests.of_bytes(self.manifest)

    @property
    def documents(self) -> dict[str, bytes]:
        """Digest to bytes of manifest and blobs."""
        return {digests.of_bytes(data): data for data in (self.manifest, *self.blobs)}


class Signed(msgspec.Struct, frozen=True):
    """A payload of cosign's with its signature."""

    payload: bytes
    signature: bytes


def document(
    content: bytes, artifact_type: str, subject: Subject, *, title: str, **annotations: str
) -> Artifact:
    """The artifact of one document: an SBOM, a statement, an envelope.

    Args:
        content: The document.
        artifact_type: Its media type, too.
        subject: What it is about.
        title: The name of the file that a tool would save it as.
        annotations: More of the manifest; `_` in a key stands for `.`.
    """
    layer = part(content, artifact_type, {TITLE: title})
    given = {key.replace("_", "."): value for key, value in annotations.items()}
    return _artifact(
        part(EMPTY, EMPTY_TYPE), EMPTY, [layer], [content], subject, artifact_type, given
    )


def statement(content: bytes, predicate_type: str, subject: Subject, *, title: str) -> Artifact:
    """The artifact of an unsigned in-toto statement."""
    layer = part(content, STATEMENT_TYPE, {TITLE: title, PREDICATE_TYPE: predicate_type})
    return _artifact(
        part(EMPTY, EMPTY_TYPE),
        EMPTY,
        [layer],
        [content],
        subject,
        PROVENANCE_TYPE,
        {PREDICATE_TYPE: predicate_type},
    )


def signature(signed: Signed, subject: Subject) -> Artifact:
    """The artifact of one signature, as cosign writes it in its OCI 1.1 mode."""
    config = _cosign_config([digests.of_bytes(signed.payload)])
    return _artifact(
        part(config, SIGNATURE_TYPE),
        config,
        [_signature_layer(signed)],
        [signed.payload],
        subject,
        SIGNATURE_TYPE,
        {},
    )


def attestation(envelope: bytes, predicate_type: str, subject: Subject) -> Artifact:
    """The artifact of one signed statement."""
    config = _cosign_config([digests.of_bytes(envelope)])
    return _artifact(
        part(config, ATTESTATION_TYPE),
        config,
        [_attestation_layer(envelope, predicate_type)],
        [envelope],
        subject,
        ATTESTATION_TYPE,
        {PREDICATE_TYPE: predicate_type},
    )


def _artifact(
    config: Part,
    config_bytes: bytes,
    layers: Sequence[Part],
    contents: Sequence[bytes],
    subject: Subject,
    artifact_type: str,
    annotations: Mapping[str, str],
) -> Artifact:
    manifest = canonical_json(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "artifactType": artifact_type,
            "config": config,
            "layers": list(layers),
            "subject": Part(subject.media_type, subject.digest, subject.size),
        }
        | ({"annotations": dict(annotations)} if annotations else {})
    )
    return Artifact(manifest, (config_bytes, *contents), subject, artifact_type)


def tag(digest: str, suffix: Suffix) -> str:
    """Where cosign keeps what belongs to an image: `sha256-HEX.sig`."""
    return f"sha256-{digests.parse(digest)}.{suffix}"


class TagImage(msgspec.Struct, frozen=True):
    """The image under one of cosign's tags.

    Attributes:
        manifest: Its bytes.
        config: Its configuration; the layers are those of artifacts.
    """

    manifest: bytes
    config: bytes


def tag_image(layers: Sequence[Part]) -> TagImage:
    """The image whose layers are these signatures or envelopes, in their order."""
    config = _cosign_config([layer.digest for layer in layers])
    manifest = canonical_json(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": part(config, CONFIG_TYPE),
            "layers": list(layers),
        }
    )
    return TagImage(manifest, config)


def _signature_layer(signed: Signed) -> Part:
    text = base64.b64encode(signed.signature).decode()
    return part(signed.payload, PAYLOAD_TYPE, {SIGNATURE: text})


def _attestation_layer(envelope: bytes, predicate_type: str) -> Part:
    # The empty signature is what cosign writes too: the envelope holds its own.
    return part(envelope, ENVELOPE_TYPE, {SIGNATURE: "", "predicateType": predicate_type})


def _cosign_config(layers: Sequence[str]) -> bytes:
    return canonical_json(
        {
            "architecture": "",
            "os": "",
            "created": "0001-01-01T00:00:00Z",
            "history": [{"created": "0001-01-01T00:00:00Z"} for _ in layers],
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": list(layers)},
        }
    )


def part(content: bytes, media_type: str, annotations: Mapping[str, str] | None = None) -> Part:
    """The descriptor of bytes."""
    return Part(media_type, digests.of_bytes(content), len(content), dict(annotations or {}))


def parse(manifest: bytes) -> ArtifactManifest:
    """Reads the manifest of an artifact or of an image under cosign's tag.

    Raises:
        VerificationError: It is something else.
    """
    try:
        return msgspec.convert(_without_nulls(msgspec.json.decode(manifest)), ArtifactManifest)
    except DECODE_ERRORS as error:
        raise VerificationError(f"An attachment's manifest cannot be read: {error}.") from error


def _without_nulls(value: object) -> object:
    """Other tools write null for what is not there."""
    if isinstance(value, dict):
        return {name: _without_nulls(each) for name, each in value.items() if each is not None}
    return [_without_nulls(each) for each in value] if isinstance(value, list) else value


def signature_of(layer: Part) -> bytes:
    """The signature that a layer's annotation holds; raises VerificationError for none."""
    try:
        return base64.b64decode(layer.annotations[SIGNATURE], validate=True)
    except (KeyError, binascii.Error, ValueError) as error:
        raise VerificationError("A layer of the signature's image has no signature.") from error

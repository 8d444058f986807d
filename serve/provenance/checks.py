"""Whether signatures and documents hold for what they are found beside. No I/O.

One signature by a key that is trusted is enough, as with cosign; what others signed beside it is
left alone. A signature names the statements that were signed with it, so that one that is missing
or was replaced is noticed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from scoring import digest as digests
from scoring.errors import UnsignedError, VerificationError
from serve.provenance import boms, simplesigning
from serve.provenance.artifacts import (
    CYCLONEDX_TYPE,
    PROVENANCE_TYPE,
    SPDX_TYPE,
    Signed,
    signature_of,
)
from serve.provenance.dsse import ENVELOPE_TYPE, open_envelope
from serve.provenance.names import DECODE_ERRORS, hexadecimal
from serve.provenance.simplesigning import PAYLOAD_TYPE
from serve.provenance.slsa import (
    SBOM_PREDICATES,
    Statement,
    is_about,
    parse_statement,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from serve.provenance.artifacts import ArtifactManifest, Part
    from serve.provenance.keys import PublicKey

_RESIGN = "Do not run it; get it anew from whoever signed it, or sign it again if you trust it."
_TITLES = {
    SPDX_TYPE: "SPDX document",
    CYCLONEDX_TYPE: "CycloneDX document",
    PROVENANCE_TYPE: "provenance",
}


class Attached(msgspec.Struct, frozen=True):
    """A document that was found beside its subject: an SBOM or an unsigned statement."""

    artifact_type: str
    content: bytes


class Evidence(msgspec.Struct, frozen=True):
    """All that was found beside a manifest.

    Attributes:
        digest: The manifest's.
        parts: The digests of what the manifest names: layers and base.
        signatures: In the order in which they were found.
        envelopes: DSSE envelopes.
        documents: SBOMs and unsigned statements.
    """

    digest: str
    parts: frozenset[str] = frozenset()
    signatures: tuple[Signed, ...] = ()
    envelopes: tuple[bytes, ...] = ()
    documents: tuple[Attached, ...] = ()


class Found:
    """Gathers what is found beside a manifest.

    Args:
        digest: The manifest's.
        parts: The digests of what the manifest names: layers and base.
    """

    def __init__(self, digest: str, parts: Iterable[str] = ()) -> None:
        self._digest = digest
        self._parts = frozenset(parts)
        self._signatures: list[Signed] = []
        self._envelopes: list[bytes] = []
        self._documents: list[Attached] = []

    def add(self, manifest: ArtifactManifest, read: Callable[[Part], bytes]) -> None:
        """Takes what an artifact holds; of kinds that are unknown here, nothing.

        Args:
            manifest: The artifact's.
            read: Gives a blob's bytes, checked against their digest.

        Raises:
            VerificationError: It speaks of something else.
        """
        if manifest.subject is not None and manifest.subject.digest != self._digest:
            raise VerificationError(
                f"What is attached to {self._digest} speaks of {manifest.subject.digest}.",
                hint=_RESIGN,
            )
        for layer in manifest.layers:
            if layer.media_type == PAYLOAD_TYPE:
                self._signatures.append(Signed(read(layer), signature_of(layer)))
            elif layer.media_type == ENVELOPE_TYPE:
                self._envelopes.append(read(layer))
            elif layer.media_type in _TITLES:
                self._documents.append(Attached(layer.media_type, read(layer)))

    def evidence(self) -> Evidence:
        """All of it, each once: it may be found in two places."""
        return Evidence(
            self._digest,
            self._parts,
            tuple(dict.fromkeys(self._signatures)),
            tuple(dict.fromkeys(self._envelopes)),
            tuple(dict.fromkeys(self._documents)),
        )


class Verdict(msgspec.Struct, frozen=True):
    """What held.

    Attributes:
        digest: Of what was checked.
        keys: Fingerprints of the trusted keys that signed it; empty where none was asked for.
        signatures: How many signatures there are, by whomever.
        attestations: Predicate types of the statements that the keys signed.
        documents: Media types of what is attached; all of it speaks of this digest.
    """

    digest: str
    keys: tuple[str, ...]
    signatures: int
    attestations: tuple[str, ...]
    documents: tuple[str, ...]


class _Trusted(msgspec.Struct, frozen=True):
    """The signatures that count, and what they say was signed with them."""

    keys: tuple[str, ...]
    statements: frozenset[tuple[str, str]]


def check(evidence: Evidence, keys: Sequence[PublicKey]) -> Verdict:
    """Checks everything that was found.

    Args:
        evidence: What was found.
        keys: Those that are trusted; none to check only that documents speak of their subject.

    Raises:
        UnsignedError: A key was given, and there is no signature.
        VerificationError: Something does not match; the message says what.
    """
    trusted = _check_signatures(evidence, keys) if keys else _Trusted((), frozenset())
    statements = _check_envelopes(evidence, keys)
    _require_complete(trusted, statements)
    for document in evidence.documents:
        _check_document(document, evidence, statements.values())
    return Verdict(
        digest=evidence.digest,
        keys=trusted.keys,
        signatures=len(evidence.signatures),
        attestations=tuple(sorted({each.predicate_type for each in statements.values()})),
        documents=tuple(sorted({each.artifact_type for each in evidence.documents})),
    )


def _check_signatures(evidence: Evidence, keys: Sequence[PublicKey]) -> _Trusted:
    if not evidence.signatures:
        raise UnsignedError(
            f"{evidence.digest} has no signature.",
            hint="Sign it with 'fieldpost package sign REF --key cosign.key'.",
        )
    ours = [(each, _signer(each, keys)) for each in evidence.signatures]
    claims = [(simplesigning.parse(each.payload), key) for each, key in ours if key is not None]
    if not claims:
        raise _other_key(evidence, keys)
    holding = [(claim, key) for claim, key in claims if claim.digest == evidence.digest]
    if not holding:
        raise VerificationError(
            f"The signature is that of another image, {claims[0][0].digest}, and was copied "
            f"beside {evidence.digest}.",
            hint=_RESIGN,
        )
    statements = frozenset(pair for claim, _ in holding for pair in claim.statements.items())
    return _Trusted(tuple(sorted({key.fingerprint for _, key in holding})), statements)


def _signer(signed: Signed, keys: Sequence[PublicKey]) -> PublicKey | None:
    return next((key for key in keys if key.accepts(signed.signature, signed.payload)), None)


def _other_key(evidence: Evidence, keys: Sequence[PublicKey]) -> VerificationError:
    count = len(evidence.signatures)
    found = "The signature" if count == 1 else f"None of the {count} signatures"
    verb = "is not" if count == 1 else "is"
    trusted = ", ".join(key.fingerprint[:19] for key in keys)
    return VerificationError(
        f"{found} of {evidence.digest} {verb} by a trusted key ({trusted}): it was made with "
        "another key, or changed since.",
        hint="Check that this is the public key of whoever signed; if it is, do not run it.",
    )


def _check_envelopes(evidence: Evidence, keys: Sequence[PublicKey]) -> dict[str, Statement]:
    """The statements that a trusted key signed, by the digest of their bytes."""
    found = {}
    for envelope in evidence.envelopes if keys else ():
        content, key = open_envelope(envelope, keys)
        if key is None:
            continue
        statement = parse_statement(content)
        if not is_about(statement, evidence.digest):
            raise VerificationError(
                f"An attestation ({statement.predicate_type}) speaks of something else than "
                f"{evidence.digest}, and was copied here.",
                hint=_RESIGN,
            )
        found[digests.of_bytes(content)] = statement
    return found


def _require_complete(trusted: _Trusted, statements: dict[str, Statement]) -> None:
    for predicate_type, digest in sorted(trusted.statements):
        if digest not in statements:
            raise VerificationError(
                f"The attestation {predicate_type} that was signed with it is missing or was "
                "replaced.",
                hint=_RESIGN,
            )


def _check_document(document: Attached, evidence: Evidence, signed: Iterable[Statement]) -> None:
    title = _TITLES.get(document.artifact_type, document.artifact_type)
    content, digest = _decode(document.content, title), evidence.digest
    if not _speaks_of(document.artifact_type, content, evidence):
        raise VerificationError(
            f"The attached {title} does not speak of {digest}: it is another's, or was changed.",
            hint=_RESIGN,
        )
    predicate_type, predicate = _predicate(document.artifact_type, content)
    same_kind = [each.predicate for each in signed if each.predicate_type == predicate_type]
    if same_kind and predicate not in same_kind:
        raise VerificationError(
            f"The attached {title} of {digest} is not the one that was signed.", hint=_RESIGN
        )


def _decode(content: bytes, title: str) -> dict[str, Any]:
    try:
        return msgspec.json.decode(content, type=dict[str, Any])
    except DECODE_ERRORS as error:
        raise VerificationError(f"The attached {title} cannot be read: {error}.") from error


def _predicate(artifact_type: str, content: dict[str, Any]) -> tuple[str, Any]:
    if artifact_type == PROVENANCE_TYPE:
        return str(content.get("predicateType", "")), content.get("predicate")
    return SBOM_PREDICATES.get(artifact_type, ""), content


def _speaks_of(artifact_type: str, content: dict[str, Any], evidence: Evidence) -> bool:
    """Whether a document is about the manifest; one of an unknown kind is not looked into."""
    if artifact_type == PROVENANCE_TYPE:
        return is_about(parse_statement(msgspec.json.encode(content)), evidence.digest)
    if artifact_type not in SBOM_PREDICATES:
        return True
    about = boms.about(artifact_type, content)
    wanted = hexadecimal(evidence.digest)
    if wanted in about.root:
        return True
    # What images share has no manifest: it is about this one whose layers and base all of it is.
    parts = {hexadecimal(each) for each in evidence.parts}
    return bool(about.root) and about.root | about.parts <= parts

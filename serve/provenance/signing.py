"""Signs a manifest, and the statements about it. No I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scoring import digest as digests
from scoring.errors import VerificationError
from serve.provenance import artifacts, checks, dsse, simplesigning
from serve.provenance.artifacts import Signed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from serve.provenance.artifacts import Artifact, Subject
    from serve.provenance.keys import PrivateKey


def sign(
    subject: Subject, statements: Mapping[str, bytes], key: PrivateKey, reference: str
) -> tuple[Artifact, ...]:
    """The signature of a manifest and the attestations that it names.

    Args:
        subject: The manifest.
        statements: Predicate type to in-toto statement about the manifest.
        key: What signs.
        reference: The manifest's repository, without tag and digest.

    Returns:
        The attestations, then the signature: whoever finds the signature finds what it names.
    """
    attestations = tuple(
        artifacts.attestation(dsse.seal(statement, key), kind, subject)
        for kind, statement in statements.items()
    )
    payload = _payload(subject, statements, reference)
    signature = artifacts.signature(Signed(payload, key.sign(payload)), subject)
    return (*attestations, signature)


def is_signed(
    found: checks.Evidence,
    subject: Subject,
    statements: Mapping[str, bytes],
    key: PrivateKey,
    reference: str,
) -> bool:
    """Whether the key has signed exactly this already, and all of it is there and holds."""
    payload = _payload(subject, statements, reference)
    if not any(
        each.payload == payload and key.public.accepts(each.signature, payload)
        for each in found.signatures
    ):
        return False
    try:
        checks.check(found, [key.public])
    except VerificationError:
        return False
    return True


def _payload(subject: Subject, statements: Mapping[str, bytes], reference: str) -> bytes:
    named = {kind: digests.of_bytes(statement) for kind, statement in statements.items()}
    return simplesigning.payload(subject.digest, reference, named)

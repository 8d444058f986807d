"""Signs a manifest, and the statements about it. No I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scoring import digest as digests
from serve.provenance import artifacts, dsse, simplesigning
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
    named = {kind: digests.of_bytes(statement) for kind, statement in statements.items()}
    payload = simplesigning.payload(subject.digest, reference, named)
    signature = artifacts.signature(Signed(payload, key.sign(payload)), subject)
    return (*attestations, signature)

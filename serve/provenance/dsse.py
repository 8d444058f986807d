"""DSSE envelopes: a signed in-toto statement, as `cosign verify-attestation` reads it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from scoring.errors import VerificationError
from scoring.packages.documents import canonical_json
from serve.provenance.names import DECODE_ERRORS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from serve.provenance.keys import PrivateKey, PublicKey

ENVELOPE_TYPE = "application/vnd.dsse.envelope.v1+json"
STATEMENT_TYPE = "application/vnd.in-toto+json"


class _Signature(msgspec.Struct, frozen=True):
    sig: bytes
    keyid: str = ""


class _Envelope(msgspec.Struct, frozen=True, rename="camel"):
    payload_type: str
    payload: bytes
    signatures: tuple[_Signature, ...]


def authenticated(payload_type: str, payload: bytes) -> bytes:
    """The bytes that are signed: type and content with their lengths before them."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)


def seal(statement: bytes, key: PrivateKey) -> bytes:
    """The envelope of a statement, signed."""
    signature = key.sign(authenticated(STATEMENT_TYPE, statement))
    return canonical_json(_Envelope(STATEMENT_TYPE, statement, (_Signature(signature),)))


def open_envelope(content: bytes, keys: Iterable[PublicKey]) -> tuple[bytes, PublicKey | None]:
    """The statement in an envelope, and the first of the keys that signed it; None for none.

    Raises:
        VerificationError: It is no envelope of a statement.
    """
    try:
        envelope = msgspec.json.decode(content, type=_Envelope)
    except DECODE_ERRORS as error:
        raise VerificationError(f"An attestation is no DSSE envelope: {error}.") from error
    if envelope.payload_type != STATEMENT_TYPE:
        raise VerificationError(
            f"An attestation holds {envelope.payload_type!r} instead of an in-toto statement."
        )
    signed = authenticated(envelope.payload_type, envelope.payload)
    for key in keys:
        if any(key.accepts(each.sig, signed) for each in envelope.signatures):
            return envelope.payload, key
    return envelope.payload, None

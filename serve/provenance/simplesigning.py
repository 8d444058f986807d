"""What cosign signs: a small JSON document that names an image's manifest by its digest.

The signature is over the document's very bytes, so these are kept beside it and never made anew.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from scoring import __version__
from scoring import digest as digests
from scoring.errors import VerificationError
from scoring.packages.documents import canonical_json
from serve.provenance.names import DECODE_ERRORS

if TYPE_CHECKING:
    from collections.abc import Mapping

PAYLOAD_TYPE = "application/vnd.dev.cosign.simplesigning.v1+json"
KIND = "cosign container image signature"
STATEMENTS = "dev.fieldpost.statements"


class _Image(msgspec.Struct, frozen=True):
    digest: str = msgspec.field(name="docker-manifest-digest")


class _Identity(msgspec.Struct, frozen=True):
    reference: str = msgspec.field(name="docker-reference", default="")


class _Critical(msgspec.Struct, frozen=True):
    image: _Image
    type: str
    identity: _Identity = _Identity()


class _Optional(msgspec.Struct, frozen=True):
    statements: dict[str, str] = msgspec.field(name=STATEMENTS, default_factory=dict)


class _Document(msgspec.Struct, frozen=True):
    critical: _Critical
    optional: _Optional | None = None


class Claim(msgspec.Struct, frozen=True):
    """What a signature says.

    Attributes:
        digest: Of the manifest that was signed.
        reference: The repository that it was signed in; empty where it was in none.
        statements: Predicate type to digest of the statements that were signed with it.
    """

    digest: str
    reference: str
    statements: dict[str, str]


def payload(digest: str, reference: str, statements: Mapping[str, str]) -> bytes:
    """The document to sign.

    Args:
        digest: Of the image's manifest.
        reference: The image's repository, without tag and digest.
        statements: Predicate type to digest of the statements that are signed with it.
    """
    digests.parse(digest)
    return canonical_json(
        {
            "critical": {
                "identity": {"docker-reference": reference},
                "image": {"docker-manifest-digest": digest},
                "type": KIND,
            },
            "optional": {"creator": f"Fieldpost {__version__}", STATEMENTS: dict(statements)},
        }
    )


def parse(content: bytes) -> Claim:
    """What a signed document says.

    Raises:
        VerificationError: It is no such document.
    """
    try:
        document = msgspec.json.decode(content, type=_Document)
    except DECODE_ERRORS as error:
        raise VerificationError(f"What was signed is no cosign document: {error}.") from error
    critical = document.critical
    if critical.type != KIND or not digests.is_digest(critical.image.digest):
        raise VerificationError("What was signed is something else than a container image.")
    statements = document.optional.statements if document.optional else {}
    return Claim(critical.image.digest, critical.identity.reference, statements)

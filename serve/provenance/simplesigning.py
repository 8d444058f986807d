"""What cosign signs: a small JSON document that names an image's manifest by its digest.

The signature is over the document's very bytes, so these are kept beside it and never made anew.
"""

from __future__ import annotations

import msgspec

from scoring import __version__
from scoring import digest as digests
from scoring.errors import VerificationError
from serve.packaging.image import canonical_json

PAYLOAD_TYPE = "application/vnd.dev.cosign.simplesigning.v1+json"
KIND = "cosign container image signature"


class _Image(msgspec.Struct, frozen=True):
    digest: str = msgspec.field(name="docker-manifest-digest")


class _Identity(msgspec.Struct, frozen=True):
    reference: str = msgspec.field(name="docker-reference", default="")


class _Critical(msgspec.Struct, frozen=True):
    image: _Image
    type: str
    identity: _Identity = _Identity()


class _Document(msgspec.Struct, frozen=True):
    critical: _Critical


class Claim(msgspec.Struct, frozen=True):
    """What a signature says.

    Attributes:
        digest: Of the manifest that was signed.
        reference: The repository that it was signed in; empty where it was in none.
    """

    digest: str
    reference: str


def payload(digest: str, reference: str) -> bytes:
    """The document to sign.

    Args:
        digest: Of the image's manifest.
        reference: The image's repository, without tag and digest.
    """
    digests.parse(digest)
    return canonical_json(
        {
            "critical": {
                "identity": {"docker-reference": reference},
                "image": {"docker-manifest-digest": digest},
                "type": KIND,
            },
            "optional": {"creator": f"Fieldpost {__version__}"},
        }
    )


def parse(content: bytes) -> Claim:
    """What a signed document says.

    Raises:
        VerificationError: It is no such document.
    """
    try:
        critical = msgspec.json.decode(content, type=_Document).critical
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise VerificationError(f"What was signed is no cosign document: {error}.") from error
    if critical.type != KIND or not digests.is_digest(critical.image.digest):
        raise VerificationError("What was signed is something else than a container image.")
    return Claim(digest=critical.image.digest, reference=critical.identity.reference)

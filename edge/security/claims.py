"""Claim tokens: what a device shows once to be let in, and by which it knows whom it talks to.

    fpe1_BASE64URL(id 8 | secret 24 | authority's SHA-256 32 | root's SHA-256 32 | check 4)

The controller keeps the digest of the secret alone. A token names the authority and the first root
by their digests, so that a device believes neither the network nor a broken-into controller.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
from typing import Final

import msgspec

from scoring.errors import EnrolmentError

_PREFIX: Final = "fpe1_"
_ID, _SECRET, _PIN, _CHECK = 8, 24, 32, 4
_LENGTH: Final = _ID + _SECRET + 2 * _PIN + _CHECK


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """What a token says; its text form has the secret in the clear, `repr` has not.

    Attributes:
        id: Names the claim; no secret.
        secret: Shown once.
        authority: The SHA-256 of the authority's certificate.
        root: The SHA-256 of the root metadata to begin with; zeros for none.
    """

    id: str
    secret: bytes
    authority: bytes
    root: bytes

    @classmethod
    def generate(cls, authority: bytes, root: bytes) -> Claim:
        """A new claim."""
        return cls(
            id=secrets.token_hex(_ID),
            secret=secrets.token_bytes(_SECRET),
            authority=authority,
            root=root,
        )

    @property
    def text(self) -> str:
        """The token."""
        body = bytes.fromhex(self.id) + self.secret + self.authority + self.root
        check = hashlib.sha256(body).digest()[:_CHECK]
        return _PREFIX + base64.urlsafe_b64encode(body + check).decode().rstrip("=")

    @property
    def digest(self) -> str:
        """What the controller keeps of the secret."""
        return hashlib.sha256(self.secret).hexdigest()

    def matches(self, digest: str) -> bool:
        """Whether the secret is the one whose digest was kept; in constant time."""
        return hmac.compare_digest(self.digest, digest)

    def __repr__(self) -> str:
        return f"Claim({self.id})"


def parse(text: str) -> Claim:
    """Reads a token.

    Raises:
        EnrolmentError: It is none, or was typed or copied wrongly.
    """
    body = _decode(text.strip())
    if body is None or hashlib.sha256(body[:-_CHECK]).digest()[:_CHECK] != body[-_CHECK:]:
        raise EnrolmentError(
            "This is no enrolment token, or a part of it is missing or changed.",
            hint="Copy it whole: it begins with 'fpe1_'.",
        )
    at = (_ID, _ID + _SECRET, _ID + _SECRET + _PIN)
    return Claim(
        id=body[: at[0]].hex(),
        secret=body[at[0] : at[1]],
        authority=body[at[1] : at[2]],
        root=body[at[2] : -_CHECK],
    )


def _decode(text: str) -> bytes | None:
    if not text.startswith(_PREFIX):
        return None
    encoded = text.removeprefix(_PREFIX)
    try:
        body = base64.b64decode(encoded + "=" * (-len(encoded) % 4), b"-_", validate=True)
    except (binascii.Error, ValueError):
        return None
    return body if len(body) == _LENGTH else None

"""The value of a header that says who asks, taken apart. Pure."""

from __future__ import annotations

import base64
import binascii
from typing import Literal, NamedTuple

KEY_PREFIX = "fp_"
LONGEST = 16_384

_KEY_SCHEMES = frozenset({"apikey", "key", "api-key"})


class Credential(NamedTuple):
    """What a sender shows.

    Attributes:
        kind: An API key, or a token of the issuer.
        text: The secret itself.
    """

    kind: Literal["key", "token"]
    text: str

    def __repr__(self) -> str:
        return f"Credential({self.kind!r}, '***')"


def parse(raw: bytes) -> Credential | None:
    """Reads `Bearer …`, `ApiKey …`, `Key …` (what `x-api-key` becomes) and `Basic …`.

    A bearer may be a key, too, for many clients know no other scheme. So may the password of
    `Basic`, whatever the user name: Prometheus, curl and tritonclient have that built in.

    Returns:
        None for anything else.
    """
    if len(raw) > LONGEST or not raw.isascii():
        return None
    scheme, _, rest = raw.decode("ascii").strip().partition(" ")
    scheme, rest = scheme.lower(), rest.strip()
    if not rest:
        return None
    if scheme == "bearer":
        return Credential("key" if rest.startswith(KEY_PREFIX) else "token", rest)
    if scheme in _KEY_SCHEMES:
        return Credential("key", rest)
    return _basic(rest) if scheme == "basic" else None


def _basic(encoded: str) -> Credential | None:
    try:
        text = base64.b64decode(encoded, validate=True).decode("ascii")
    except (binascii.Error, UnicodeDecodeError):
        return None
    _, colon, password = text.partition(":")
    return Credential("key", password) if colon and password else None

"""An issuer's signing keys, as it publishes them (RFC 7517). Pure, but for the import of PyJWT."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

_MIN_RSA_BITS = 2048
_RSA = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})
_CURVES = {"P-256": "ES256", "P-384": "ES384", "P-521": "ES512"}
_EDWARDS = frozenset({"Ed25519", "Ed448"})
_EDDSA = frozenset({"EdDSA"})

ALGORITHMS = _RSA | frozenset(_CURVES.values()) | _EDDSA
"""What signatures may be made with: neither `none`, nor a secret that both sides would share."""


class SigningKey(NamedTuple):
    """A public key.

    Attributes:
        kid: Its name in tokens; empty where it has none.
        algorithms: What it may have signed with: a key of one kind must not pass as another.
        key: As `cryptography` has it.
    """

    kid: str
    algorithms: frozenset[str]
    key: Any


def parse(data: bytes) -> tuple[SigningKey, ...]:
    """The keys of a document that can be used here; others are passed over.

    Raises:
        ValueError: It is no such document, or holds no usable key; says why.
    """
    try:
        document = msgspec.json.decode(data)
    except msgspec.DecodeError as error:
        raise ValueError(f"it is not JSON ({error})") from None
    entries = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(entries, list):
        raise ValueError("it has no list of keys")  # noqa: TRY004 - of a document, not of an argument
    found = tuple(key for entry in entries if (key := _signing_key(entry)) is not None)
    if not found:
        raise ValueError(f"none of its {len(entries)} keys is a public key that signs")
    return found


def _signing_key(entry: Any) -> SigningKey | None:
    if not isinstance(entry, dict) or entry.get("use", "sig") != "sig":
        return None
    operations = entry.get("key_ops", ["verify"])
    algorithms = _algorithms(entry)
    declared = entry.get("alg")
    if declared is not None:
        algorithms &= {declared} if isinstance(declared, str) else set()
    kid = entry.get("kid", "")
    if not algorithms or "verify" not in operations or not isinstance(kid, str):
        return None
    key = _load(entry, next(iter(algorithms)))
    return None if key is None else SigningKey(kid, algorithms, key)


def _algorithms(entry: dict[str, Any]) -> frozenset[str]:
    """What a kind of key can sign with; nothing for kinds that are not public keys."""
    kind, curve = entry.get("kty"), entry.get("crv")
    if kind == "RSA":
        return _RSA
    if kind == "EC" and isinstance(curve, str) and curve in _CURVES:
        return frozenset({_CURVES[curve]})
    return _EDDSA if kind == "OKP" and curve in _EDWARDS else frozenset()


def _load(entry: dict[str, Any], algorithm: str) -> Any:
    import jwt  # noqa: PLC0415 - the extra "oidc"

    public = {name: value for name, value in entry.items() if name not in {"d", "p", "q", "alg"}}
    try:
        key = jwt.PyJWK.from_dict(public, algorithm).key
    except (jwt.PyJWTError, ValueError, TypeError, KeyError, AttributeError):
        return None
    bits = getattr(key, "key_size", _MIN_RSA_BITS)
    return None if algorithm in _RSA and bits < _MIN_RSA_BITS else key


def choose(keys: Sequence[SigningKey], kid: str, algorithm: str) -> list[SigningKey]:
    """The keys that may have signed a token: the one that it names, or all of its kind."""
    return [key for key in keys if algorithm in key.algorithms and (not kid or key.kid == kid)]

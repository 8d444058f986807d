"""Signing keys: ECDSA on P-256 where we make them, what cosign signs with where we read them."""

from __future__ import annotations

import hashlib

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

from scoring.errors import SigningKeyError

MIN_RSA_BITS = 2048

PrivateNumbers = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey
PublicNumbers = ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey


class PublicKey:
    """What verifies signatures.

    Args:
        numbers: The key as `cryptography` has it.

    Raises:
        SigningKeyError: It is of a kind that cosign does not sign with, or too short.
    """

    def __init__(self, numbers: object) -> None:
        if not isinstance(numbers, PublicNumbers):
            raise _unknown_kind(numbers)
        if isinstance(numbers, rsa.RSAPublicKey) and numbers.key_size < MIN_RSA_BITS:
            raise SigningKeyError(f"An RSA key of {numbers.key_size} bits is too short to trust.")
        self._numbers = numbers

    def accepts(self, signature: bytes, data: bytes) -> bool:
        """Whether the signature is one of this data by this key's other half."""
        numbers = self._numbers
        try:
            if isinstance(numbers, ec.EllipticCurvePublicKey):
                numbers.verify(signature, data, ec.ECDSA(hashes.SHA256()))
            elif isinstance(numbers, rsa.RSAPublicKey):
                numbers.verify(signature, data, padding.PKCS1v15(), hashes.SHA256())
            else:
                numbers.verify(signature, data)
        except (InvalidSignature, ValueError):
            return False
        return True

    @property
    def pem(self) -> bytes:
        """As `cosign.pub` has it."""
        return self._numbers.public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    @property
    def fingerprint(self) -> str:
        """`SHA256:` and the digest of the key's DER form, to tell keys apart by."""
        der = self._numbers.public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        return f"SHA256:{hashlib.sha256(der).hexdigest()}"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PublicKey) and self.fingerprint == other.fingerprint

    def __hash__(self) -> int:
        return hash(self.fingerprint)

    def __repr__(self) -> str:
        return f"PublicKey({self.fingerprint})"


class PrivateKey:
    """What signs; its numbers are in no text that it has.

    Args:
        numbers: The key as `cryptography` has it.

    Raises:
        SigningKeyError: It is of a kind that cosign does not sign with, or too short.
    """

    def __init__(self, numbers: object) -> None:
        if not isinstance(numbers, PrivateNumbers):
            raise _unknown_kind(numbers)
        self._numbers = numbers
        self.public = PublicKey(numbers.public_key())

    @classmethod
    def generate(cls) -> PrivateKey:
        """A new key: ECDSA on P-256, as `cosign generate-key-pair` makes it."""
        return cls(ec.generate_private_key(ec.SECP256R1()))

    def sign(self, data: bytes) -> bytes:
        """The signature of the data, with SHA-256."""
        numbers = self._numbers
        if isinstance(numbers, ec.EllipticCurvePrivateKey):
            return numbers.sign(data, ec.ECDSA(hashes.SHA256()))
        if isinstance(numbers, rsa.RSAPrivateKey):
            return numbers.sign(data, padding.PKCS1v15(), hashes.SHA256())
        return numbers.sign(data)

    def pkcs8(self) -> bytes:
        """The key itself, unencrypted, in DER."""
        return self._numbers.private_bytes(
            serialization.Encoding.DER,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )

    def __repr__(self) -> str:
        return f"PrivateKey({self.public.fingerprint})"


def _unknown_kind(numbers: object) -> SigningKeyError:
    return SigningKeyError(
        f"A key of the kind {type(numbers).__name__} does not sign images.",
        hint="Use an ECDSA, RSA or Ed25519 key; 'fieldpost signing-key create' makes one.",
    )

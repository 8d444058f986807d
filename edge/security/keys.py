"""Signing keys of the fleet: Ed25519, in PEM, encrypted where a password is given."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from securesystemslib.signer import CryptoSigner, SSlibKey

from edge.protocol.envelope import Signature
from scoring import durable
from scoring.errors import AlreadyExistsError, SigningKeyError

PASSWORD_VARIABLE: Final = "FIELDPOST_FLEET_PASSWORD"  # noqa: S105 - its name, not a password
_MOST_BYTES: Final = 64 * 1024

Numbers = Ed25519PrivateKey | EllipticCurvePrivateKey


class SigningKey:
    """A private key that signs metadata and messages; no text that it has shows its numbers.

    Args:
        numbers: As `cryptography` has it: Ed25519, or ECDSA on P-256 (which HSMs have).

    Raises:
        SigningKeyError: The key is of another kind.
    """

    def __init__(self, numbers: object) -> None:
        if not _is_usable(numbers):
            raise SigningKeyError(
                f"A key of the kind {type(numbers).__name__} does not sign for a fleet.",
                hint="Use Ed25519 or ECDSA on P-256; 'fieldpost fleet trust init' makes keys.",
            )
        assert isinstance(numbers, Numbers)
        self._numbers = numbers
        self.signer = CryptoSigner(numbers)

    @classmethod
    def generate(cls) -> SigningKey:
        """A new Ed25519 key."""
        return cls(Ed25519PrivateKey.generate())

    @property
    def public(self) -> SSlibKey:
        """What verifies, in the form that metadata has it."""
        return self.signer.public_key

    @property
    def keyid(self) -> str:
        """Its name: the digest of its public half."""
        return self.public.keyid

    def sign(self, data: bytes) -> Signature:
        """The signature of the data."""
        made = self.signer.sign(data)
        return Signature(keyid=made.keyid, sig=made.signature)

    def pem(self, password: str = "") -> bytes:
        """The key itself in PKCS #8; encrypted where the password is not empty."""
        coding: serialization.KeySerializationEncryption = (
            serialization.BestAvailableEncryption(password.encode())
            if password
            else serialization.NoEncryption()
        )
        return self._numbers.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, coding
        )

    def __repr__(self) -> str:
        return f"SigningKey({self.keyid[:16]})"


def _is_usable(numbers: object) -> bool:
    if isinstance(numbers, EllipticCurvePrivateKey):
        return isinstance(numbers.curve, SECP256R1)
    return isinstance(numbers, Ed25519PrivateKey)


def write(key: SigningKey, path: Path, password: str = "") -> None:
    """Writes a key that is not there yet, for its owner's eyes only.

    Raises:
        AlreadyExistsError: Something is at the path: a key that is overwritten is lost.
        WorkspaceError: It cannot be written.
    """
    write_secret(path, key.pem(password))


def write_secret(path: Path, content: bytes) -> None:
    """Writes a file of mode 600 that is not there yet; raises like `write`."""
    if path.exists() or path.is_symlink():
        raise AlreadyExistsError(
            f"{path} is there already.", hint="Choose another folder, or move the old key away."
        )
    with durable.storage_errors(str(path)):
        durable.make_folder(path.parent, mode=0o700)
    durable.write_bytes(path, content, mode=0o600)


def read(path: Path, password: str = "") -> SigningKey:
    """Reads a key.

    Raises:
        SigningKeyError: The file cannot be read, holds no key, or its password is another.
    """
    return SigningKey(load_private(read_file(path), path, password))


def load_private(content: bytes, name: object, password: str = "") -> object:
    """The private key in PEM, of whatever kind; raises like `read`, naming the file."""
    try:
        return serialization.load_pem_private_key(content, password.encode() or None)
    except TypeError as error:
        if not password:
            raise SigningKeyError(
                f"{name} is encrypted.", hint=f"Set {PASSWORD_VARIABLE} to its password."
            ) from None
        # A password was given for a key that has none: it is readable all the same.
        return _load_plain(content, name, error)
    except (ValueError, UnsupportedAlgorithm):
        hint = f"Check {PASSWORD_VARIABLE}, or restore the file." if password else ""
        raise SigningKeyError(
            f"{name} holds no private key that can be read"
            + (" with this password." if password else "."),
            hint=hint or "A key is in PEM, as 'fieldpost fleet trust init' writes it.",
        ) from None


def _load_plain(content: bytes, name: object, error: TypeError) -> object:
    try:
        return serialization.load_pem_private_key(content, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise SigningKeyError(f"{name} holds no private key: {error}.") from None


def read_file(path: Path) -> bytes:
    """The content of a small file; raises SigningKeyError where it cannot be had."""
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise SigningKeyError(
            f"The key {path} cannot be read: {error.strerror or error}.", hint="Check the path."
        ) from error
    if len(content) > _MOST_BYTES:
        raise SigningKeyError(f"{path} is too large to be a key.")
    return content

"""Files of signing keys: cosign's encrypted ones, plain PEM, and public halves.

cosign encrypts the PKCS #8 form of a key with NaCl's secretbox under a key that scrypt derives from
the password, and writes both ends' parameters as JSON into a PEM block.
"""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
from typing import TYPE_CHECKING

import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from nacl.exceptions import CryptoError
from nacl.secret import SecretBox

from scoring import durable
from scoring.errors import AlreadyExistsError, SigningKeyError
from serve.provenance.keys import PrivateKey, PublicKey
from serve.provenance.names import DECODE_ERRORS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


MAX_BYTES = 64 * 1024

# The older of its two names: every cosign, Podman and Skopeo reads it, while the newer one
# (`ENCRYPTED SIGSTORE PRIVATE KEY`) is refused by those of 2022.
LABEL = "ENCRYPTED COSIGN PRIVATE KEY"
_ENCRYPTED = (LABEL, "ENCRYPTED SIGSTORE PRIVATE KEY")
_PLAIN = ("PRIVATE KEY", "EC PRIVATE KEY", "RSA PRIVATE KEY")
_PUBLIC = "PUBLIC KEY"
_BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----\s+(.+?)\s*-----END \1-----", re.DOTALL)

SCRYPT_N = 32768
_SCRYPT_R, _SCRYPT_P = 8, 1
# What cosign itself takes. A larger number in a file would be an attack on memory and time.
_KNOWN_N = frozenset({32768, 65536, 131072})
_SALT_BYTES = 32


class _ScryptNumbers(msgspec.Struct, frozen=True):
    n: int = msgspec.field(name="N")
    r: int
    p: int


class _Kdf(msgspec.Struct, frozen=True):
    name: str
    params: _ScryptNumbers
    salt: bytes


class _Cipher(msgspec.Struct, frozen=True):
    name: str
    nonce: bytes


class _Sealed(msgspec.Struct, frozen=True):
    kdf: _Kdf
    cipher: _Cipher
    ciphertext: bytes


def encrypted_pem(key: PrivateKey, password: str) -> bytes:
    """The key as `cosign generate-key-pair` would have written it."""
    salt, nonce = secrets.token_bytes(_SALT_BYTES), secrets.token_bytes(SecretBox.NONCE_SIZE)
    numbers = _ScryptNumbers(SCRYPT_N, _SCRYPT_R, _SCRYPT_P)
    box = SecretBox(_derive(password, salt, numbers))
    sealed = _Sealed(
        kdf=_Kdf("scrypt", numbers, salt),
        cipher=_Cipher("nacl/secretbox", nonce),
        ciphertext=box.encrypt(key.pkcs8(), nonce).ciphertext,
    )
    return _block(LABEL, msgspec.json.encode(sealed))


def _derive(password: str, salt: bytes, numbers: _ScryptNumbers) -> bytes:
    return hashlib.scrypt(
        password.encode(),
        salt=salt,
        n=numbers.n,
        r=numbers.r,
        p=numbers.p,
        maxmem=256 << 20,
        dklen=SecretBox.KEY_SIZE,
    )


def _block(label: str, content: bytes) -> bytes:
    text = base64.b64encode(content).decode()
    lines = [text[at : at + 64] for at in range(0, len(text), 64)]
    return "\n".join([f"-----BEGIN {label}-----", *lines, f"-----END {label}-----", ""]).encode()


def write_pair(key: PrivateKey, password: str, prefix: Path) -> tuple[Path, Path]:
    """Writes `PREFIX.key`, which only its owner reads, and `PREFIX.pub`.

    Returns:
        Both paths.

    Raises:
        AlreadyExistsError: One of them is there: a key that is overwritten is lost.
        WorkspaceError: They cannot be written.
    """
    private, public = pair_paths(prefix)
    durable.write_bytes(private, encrypted_pem(key, password), mode=0o600)
    durable.write_bytes(public, key.public.pem)
    return private, public


def pair_paths(prefix: Path) -> tuple[Path, Path]:
    """Where a pair would be written; raises AlreadyExistsError where one of them is there."""
    private, public = (prefix.with_name(f"{prefix.name}.{end}") for end in ("key", "pub"))
    for path in (private, public):
        if path.exists() or path.is_symlink():
            raise AlreadyExistsError(
                f"{path} is there already.",
                hint="Choose another name with --output, or move the old key away.",
            )
    return private, public


def load_private(path: Path, ask: Callable[[], str]) -> PrivateKey:
    """Reads a signing key.

    Args:
        path: cosign's encrypted file, or PEM (PKCS #8, SEC 1, PKCS #1).
        ask: Called for the password where the file is encrypted.

    Raises:
        SigningKeyError: The file cannot be read, is no private key, or the password is another.
    """
    content = _read(path)
    for label, body in _blocks(content):
        if label in _ENCRYPTED:
            return PrivateKey(_load_der(_unseal(body, ask(), path), path))
        if label in _PLAIN:
            return PrivateKey(_load_pem(content, None, path))
        if label == "ENCRYPTED PRIVATE KEY":
            return PrivateKey(_load_pem(content, ask().encode(), path))
    if any(label == _PUBLIC for label, _ in _blocks(content)):
        raise SigningKeyError(
            f"{path} is the public half of a key, which cannot sign.",
            hint="Give the private half: 'cosign.key' beside 'cosign.pub'.",
        )
    raise _no_key(path)


def load_public(path: Path) -> tuple[PublicKey, ...]:
    """Reads the keys of a `cosign.pub`: one, or several while one follows another.

    Raises:
        SigningKeyError: The file cannot be read or holds no public key.
    """
    return parse_public(_read(path), path)


def parse_public(content: bytes, name: object) -> tuple[PublicKey, ...]:
    """The public keys in PEM; raises like `load_public`, naming what they are from."""
    blocks = _blocks(content)
    if any(label in (*_ENCRYPTED, *_PLAIN, "ENCRYPTED PRIVATE KEY") for label, _ in blocks):
        raise SigningKeyError(
            f"{name} is a private key; to verify, only its public half is needed.",
            hint="Give 'cosign.pub', and keep the private half to those who sign.",
        )
    found = [PublicKey(_load_public(body, name)) for label, body in blocks if label == _PUBLIC]
    if not found:
        raise _no_key(name)
    return tuple(found)


def _blocks(content: bytes) -> list[tuple[str, bytes]]:
    return [(match[1].decode(), match[2]) for match in _BLOCK.finditer(content)]


def _unseal(body: bytes, password: str, path: Path) -> bytes:
    try:
        sealed = msgspec.json.decode(_unwrap(body), type=_Sealed)
    except DECODE_ERRORS as error:
        raise SigningKeyError(f"{path} is a damaged cosign key: {error}.") from error
    numbers = sealed.kdf.params
    kinds = (sealed.kdf.name, sealed.cipher.name)
    if kinds != ("scrypt", "nacl/secretbox") or len(sealed.cipher.nonce) != SecretBox.NONCE_SIZE:
        raise SigningKeyError(f"{path} is encrypted in a way that cosign does not use: {kinds}.")
    if numbers.n not in _KNOWN_N or (numbers.r, numbers.p) != (_SCRYPT_R, _SCRYPT_P):
        raise SigningKeyError(
            f"{path} asks for a derivation (N={numbers.n}, r={numbers.r}, p={numbers.p}) that "
            "cosign does not use."
        )
    box = SecretBox(_derive(password, sealed.kdf.salt, numbers))
    try:
        return box.decrypt(sealed.ciphertext, sealed.cipher.nonce)
    except (CryptoError, ValueError, TypeError):
        raise _wrong_password(path) from None


def _unwrap(body: bytes) -> bytes:
    return base64.b64decode(b"".join(body.split()), validate=True)


def _load_der(content: bytes, path: Path) -> object:
    try:
        return serialization.load_der_private_key(content, None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise _no_key(path) from error


def _load_pem(content: bytes, password: bytes | None, path: Path) -> object:
    try:
        return serialization.load_pem_private_key(content, password)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        if password is not None:
            raise _wrong_password(path) from None
        raise _no_key(path) from error


def _load_public(body: bytes, name: object) -> object:
    try:
        return serialization.load_der_public_key(_unwrap(body))
    except (ValueError, UnsupportedAlgorithm) as error:
        raise _no_key(name) from error


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise SigningKeyError(
            f"The key {path} cannot be read: {error.strerror or error}.",
            hint="Check the path; 'fieldpost signing-key create' makes a pair.",
        ) from error
    if len(content) > MAX_BYTES:
        raise _no_key(path)
    return content


def _no_key(name: object) -> SigningKeyError:
    return SigningKeyError(
        f"{name} holds no key.",
        hint="A key is in PEM, as 'fieldpost signing-key create' and cosign write it.",
    )


def _wrong_password(path: Path) -> SigningKeyError:
    return SigningKeyError(
        f"The password does not open {path}.",
        hint="Set COSIGN_PASSWORD to the password of this key, or let the command ask for it.",
    )

"""A device's identity on its disk: a key that never leaves it, its certificate, whom it believes.

identity.pem    key and certificate: one file, so that they always belong together
authority.pem   whom to know brokers and controllers by
root.json       the root metadata to begin with; never changed
identity.json   site, name, settings: written last; without it there is no identity
"""

from __future__ import annotations

import contextlib
import ssl
from pathlib import Path
from typing import Final

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from edge.security.letters import EnrolAnswer, RenewRequest, renewal_bytes
from scoring import durable
from scoring.errors import EnrolmentError, NotFoundError

_KEY_AND_CERTIFICATE: Final = "identity.pem"
_AUTHORITY: Final = "authority.pem"
_ROOT: Final = "root.json"
_ABOUT: Final = "identity.json"
_PENDING: Final = "pending.key"

_RENEWED_AT: Final = 2 / 3
_NO_CHECK_TIME: Final = 0x200000
"""OpenSSL's X509_V_FLAG_NO_CHECK_TIME, for which Python has no name."""


class About(msgspec.Struct, frozen=True, kw_only=True):
    """The content of `identity.json`.

    Attributes:
        site: Of the device.
        device: Its name.
        settings: As the controller said.
        claim: The id of the token that it joined with.
    """

    site: str
    device: str
    settings: dict[str, str] = {}
    claim: str = ""


class Identity:
    """Who a device is.

    Args:
        folder: Where that is kept.

    Raises:
        NotFoundError: The device was not enrolled.
        EnrolmentError: The files are damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            self.about = msgspec.json.decode((folder / _ABOUT).read_bytes(), type=About)
            self.root = _read_or_empty(folder / _ROOT)
            self._load()
        except FileNotFoundError:
            raise NotFoundError(
                "This device has no identity yet.",
                hint="Run 'fieldpost-agent join --token TOKEN --url URL'.",
                where=str(folder),
            ) from None
        except (ValueError, OSError) as error:
            raise EnrolmentError(
                f"The device's identity cannot be read: {error}.",
                hint="Enrol it again, with a new token.",
                where=str(folder),
            ) from error

    def _load(self) -> None:
        pem = self.pem_file.read_bytes()
        key = serialization.load_pem_private_key(pem, None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise ValueError("its key is of another kind")  # noqa: TRY004 - of the file's content
        self.certificate = x509.load_pem_x509_certificate(pem)
        if self.certificate.public_key() != key.public_key():
            raise ValueError("its certificate is of another key")
        self._key = key

    def __repr__(self) -> str:
        return f"Identity({self.site}/{self.device})"

    @property
    def site(self) -> str:
        """Where the device is."""
        return self.about.site

    @property
    def device(self) -> str:
        """Its name."""
        return self.about.device

    @property
    def settings(self) -> dict[str, str]:
        """Where things are: `broker`, `controller`."""
        return self.about.settings

    @property
    def pem_file(self) -> Path:
        """Key and certificate, as `load_cert_chain` and paho take them."""
        return self.folder / _KEY_AND_CERTIFICATE

    @property
    def authority_file(self) -> Path:
        """Whom to know brokers and controllers by."""
        return self.folder / _AUTHORITY

    @property
    def expires_at(self) -> float:
        """When the certificate ends; seconds since the epoch."""
        return self.certificate.not_valid_after_utc.timestamp()

    @property
    def renew_at(self) -> float:
        """When to ask for the next one: at two thirds of its life."""
        begins = self.certificate.not_valid_before_utc.timestamp()
        return begins + (self.expires_at - begins) * _RENEWED_AT

    @property
    def issued_at(self) -> float:
        """It is not earlier than this, whatever the clock says."""
        return self.certificate.not_valid_before_utc.timestamp()

    def tls(self, *, clock_is_wrong: bool = False) -> ssl.SSLContext:
        """How to connect to brokers and controllers: each side shows its certificate.

        Args:
            clock_is_wrong: The device knows that it does not know the time: dates of
                certificates are not looked at, all else is.
        """
        context = authority_context(self.authority_file.read_text(), no_dates=clock_is_wrong)
        context.load_cert_chain(self.pem_file)
        return context

    def renewal(self) -> RenewRequest:
        """What to send for the next certificate: the same until `renewed`, over restarts too.

        Raises:
            StorageFullError: The new key cannot be written.
        """
        key = _pending_key(self.folder)
        csr = request_for(key).decode()
        proof = self._key.sign(renewal_bytes(csr), ec.ECDSA(hashes.SHA256()))
        own = self.certificate.public_bytes(serialization.Encoding.PEM).decode()
        return RenewRequest(certificate=own, csr=csr, proof=proof.hex())

    def renewed(self, answer: EnrolAnswer) -> Identity:
        """Takes the next certificate on; returns the identity with it.

        Raises:
            EnrolmentError: The answer is for another device or key: nothing was changed.
            StorageFullError: It cannot be written; nothing was changed.
        """
        if (answer.site, answer.device) != (self.site, self.device):
            raise EnrolmentError("The answer is for another device.")
        about = msgspec.structs.replace(self.about, settings=answer.settings or self.settings)
        _keep(self.folder, answer, about)
        return Identity(self.folder)


def request(folder: Path) -> bytes:
    """The request for the first certificate; its key is made here, once, and stays.

    Args:
        folder: Of the identity to be; made where it is missing.

    Raises:
        StorageFullError: No space is left.
        WorkspaceError: The folder cannot be written.
    """
    with durable.storage_errors("the device's identity"):
        durable.make_folder(folder, mode=0o700)
    return request_for(_pending_key(folder))


def accept(folder: Path, answer: EnrolAnswer, *, claim: str = "") -> Identity:
    """Makes the controller's answer to `request` the identity of the device.

    Args:
        folder: Of the identity.
        answer: The controller's.
        claim: The id of the token.

    Raises:
        EnrolmentError: The certificate is not for the key that was made here.
        StorageFullError: No space is left.
    """
    about = About(site=answer.site, device=answer.device, settings=answer.settings, claim=claim)
    if answer.root:
        durable.write_bytes(folder / _ROOT, answer.root.encode(), what="the device's identity")
    _keep(folder, answer, about)
    return Identity(folder)


def exists(folder: Path) -> bool:
    """Whether the device was enrolled."""
    return (folder / _ABOUT).exists()


def authority_context(pem: str, *, no_dates: bool = False) -> ssl.SSLContext:
    """Believes this authority and no other, host names checked.

    Args:
        pem: Its certificates.
        no_dates: Not to look at the dates of certificates.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_verify_locations(cadata=pem)
    if no_dates:
        context.verify_flags |= ssl.VerifyFlags(_NO_CHECK_TIME)
    return context


def request_for(key: ec.EllipticCurvePrivateKey) -> bytes:
    """A request for a certificate, in PEM; who it is for, the claim says."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "device")])
    made = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    return made.public_bytes(serialization.Encoding.PEM)


def _pending_key(folder: Path) -> ec.EllipticCurvePrivateKey:
    """The key that waits for its certificate; made, and on the disk, before anyone hears of it."""
    path = folder / _PENDING
    held = _read_key(path)
    if held is not None:
        return held
    made = ec.generate_private_key(ec.SECP256R1())
    durable.write_bytes(path, _pem_of(made), mode=0o600, what="the device's key")
    return made


def _keep(folder: Path, answer: EnrolAnswer, about: About) -> None:
    key = _key_of(folder, answer.certificate)
    what = "the device's identity"
    pem = _pem_of(key) + answer.certificate.encode()
    durable.write_bytes(folder / _AUTHORITY, answer.authority.encode(), what=what)
    durable.write_bytes(folder / _KEY_AND_CERTIFICATE, pem, mode=0o600, what=what)
    durable.write_bytes(folder / _ABOUT, msgspec.json.encode(about), what=what)
    with contextlib.suppress(OSError):  # all is on the disk; a key that is left is used once more
        (folder / _PENDING).unlink(missing_ok=True)
        durable.sync_folder(folder)


def _key_of(folder: Path, pem: str) -> ec.EllipticCurvePrivateKey:
    """The key that a certificate is for: the one that waits, or, taken on before, the present."""
    try:
        certificate = x509.load_pem_x509_certificate(pem.encode())
    except ValueError as error:
        raise EnrolmentError(f"The controller's certificate cannot be read: {error}.") from error
    for path in (folder / _PENDING, folder / _KEY_AND_CERTIFICATE):
        key = _read_key(path)
        if key is not None and certificate.public_key() == key.public_key():
            return key
    raise EnrolmentError("The controller's certificate is for another key.")


def _read_key(path: Path) -> ec.EllipticCurvePrivateKey | None:
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), None)
    except (FileNotFoundError, ValueError):
        return None  # none was made, or a damaged one
    return key if isinstance(key, ec.EllipticCurvePrivateKey) else None


def _pem_of(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _read_or_empty(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""

"""A small certificate authority: for devices, controllers and brokers, and nobody else.

P-256, no intermediate. A user's own CA takes its place by its certificate and key. What a request
for a certificate says about names is ignored: the claim says who a device is.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import ipaddress
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from edge.protocol.names import check_name
from edge.security import keys
from edge.security.names import CONTROLLER, controller_name, device_uri
from scoring import durable
from scoring.errors import (
    AlreadyExistsError,
    EnrolmentError,
    MalformedPayloadError,
    SigningKeyError,
    UsageError,
)

CERTIFICATE_FILE: Final = "authority.pem"
KEY_FILE: Final = "authority.key"

DAY_S: Final = 86400.0
AUTHORITY_S: Final = 3650 * DAY_S
DEVICE_S: Final = 30 * DAY_S
SERVER_S: Final = 365 * DAY_S
CRL_S: Final = 3650 * DAY_S
"""A list that expires would shut out every device at once; it is made anew when it changes."""

_BACKDATED_S: Final = 3600.0
"""Clocks differ: a certificate is good for a peer whose clock is this much behind."""

_MOST_REQUEST: Final = 16 * 1024
_LEAST_RSA_BITS: Final = 2048
_HOST: Final = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(?:\.(?!-)[A-Za-z0-9-]{1,63})*", re.ASCII)

SigningNumbers = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey
PublicNumbers = ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey


class Revoked(NamedTuple):
    """One entry of the list of revoked certificates.

    Attributes:
        serial: Of the certificate.
        at: Seconds since the epoch.
    """

    serial: int
    at: float


class Authority:
    """Signs certificates.

    Args:
        certificate: The authority's own; further ones of a user's chain follow it.
        key: Its private key.

    Raises:
        SigningKeyError: They do not belong together, or the certificate may not sign others.
    """

    def __init__(self, certificate: Sequence[x509.Certificate], key: object) -> None:
        if not isinstance(key, SigningNumbers):
            raise SigningKeyError(f"A key of the kind {type(key).__name__} signs no certificates.")
        own = certificate[0]
        if own.public_key() != key.public_key():
            raise SigningKeyError("The authority's key is not that of its certificate.")
        if not _may_sign(own):
            raise SigningKeyError(
                f"The certificate of {own.subject.rfc4514_string()} is no authority's.",
                hint="Give a CA certificate (basicConstraints CA:TRUE).",
            )
        self.certificates = tuple(certificate)
        self._key = key

    @classmethod
    def create(cls, now: float, name: str = "Fieldpost fleet") -> Authority:
        """A new authority.

        Args:
            now: Seconds since the epoch.
            name: What people see.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = _builder(subject, subject, key.public_key(), now, AUTHORITY_S)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), True)
        builder = builder.add_extension(_usage(signs=True), True)
        builder = builder.add_extension(
            x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False
        )
        return cls([builder.sign(key, hashes.SHA256())], key)

    @classmethod
    def load(cls, folder: Path, password: str = "") -> Authority:
        """The authority in a folder: `authority.pem` and `authority.key`.

        Raises:
            SigningKeyError: The files are not there, or not an authority's.
        """
        key = keys.load_private(keys.read_file(folder / KEY_FILE), folder / KEY_FILE, password)
        return cls(read_certificates(keys.read_file(folder / CERTIFICATE_FILE)), key)

    def save(self, folder: Path, password: str = "") -> None:
        """Writes both files; an authority that is there stays.

        Raises:
            AlreadyExistsError: One is there.
            WorkspaceError: They cannot be written.
        """
        if (folder / CERTIFICATE_FILE).exists():
            raise AlreadyExistsError(f"{folder} has an authority already.")
        coding: serialization.KeySerializationEncryption = (
            serialization.BestAvailableEncryption(password.encode())
            if password
            else serialization.NoEncryption()
        )
        pem = self._key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, coding
        )
        keys.write_secret(folder / KEY_FILE, pem)
        durable.write_bytes(folder / CERTIFICATE_FILE, self.pem)

    @property
    def pem(self) -> bytes:
        """Its certificate, with its chain."""
        return b"".join(one.public_bytes(serialization.Encoding.PEM) for one in self.certificates)

    @property
    def pin(self) -> bytes:
        """The SHA-256 of its certificate, by which devices know it before they have it."""
        return pin_of(self.certificates[0])

    def issue_device(
        self, csr: bytes, *, site: str, device: str, now: float, lifetime_s: float = DEVICE_S
    ) -> x509.Certificate:
        """A device's certificate, for the key of its request.

        Args:
            csr: The request, in PEM.
            site: Of the device.
            device: Its name: the certificate's common name, so the broker's user name.
            now: Seconds since the epoch.
            lifetime_s: For how long it is good.

        Raises:
            InvalidNameError: A name does not fill exactly one level of a topic.
            MalformedPayloadError: It is no request, or not signed by its own key.
            EnrolmentError: Its key is too weak.
        """
        check_name(site, "site")
        check_name(device, "device")
        names = [x509.UniformResourceIdentifier(device_uri(site, device))]
        public = read_request(csr)
        return self._issue(
            device, public, now, lifetime_s, names, [ExtendedKeyUsageOID.CLIENT_AUTH]
        )

    def issue_server(
        self, public: PublicNumbers, hosts: Iterable[str], now: float, lifetime_s: float = SERVER_S
    ) -> x509.Certificate:
        """A broker's certificate.

        Args:
            public: Its key.
            hosts: Names and addresses that it answers at; the first names it.
            now: Seconds since the epoch.
            lifetime_s: For how long it is good.

        Raises:
            UsageError: There are no hosts, or one cannot be one.
        """
        names = [_host(host) for host in hosts]
        if not names:
            raise UsageError("A server's certificate needs a host.", hint="Give --host NAME.")
        use = [ExtendedKeyUsageOID.SERVER_AUTH]
        return self._issue(str(names[0].value)[:64], public, now, lifetime_s, names, use)

    def issue_controller(
        self,
        public: PublicNumbers,
        number: int,
        hosts: Iterable[str],
        now: float,
        lifetime_s: float = SERVER_S,
    ) -> x509.Certificate:
        """A controller's certificate: the broker's client, and a server to devices.

        Args:
            public: Its key.
            number: 1, 2, ...: each controller has a name of its own, which no device can have.
            hosts: Names and addresses that it answers at.
            now: Seconds since the epoch.
            lifetime_s: For how long it is good.

        Raises:
            UsageError: A host cannot be one, or the number is none.
        """
        uri = x509.UniformResourceIdentifier(f"urn:fieldpost:{CONTROLLER.lower()}:{number}")
        names = [*(_host(host) for host in hosts), uri]
        use = [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]
        return self._issue(controller_name(number), public, now, lifetime_s, names, use)

    def _issue(
        self,
        name: str,
        public: PublicNumbers,
        now: float,
        lifetime_s: float,
        names: Sequence[x509.GeneralName],
        use: Sequence[x509.ObjectIdentifier],
    ) -> x509.Certificate:
        own = self.certificates[0]
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        end = min(now + lifetime_s, own.not_valid_after_utc.timestamp())
        builder = _builder(subject, own.subject, public, now, end - now)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), True)
        builder = builder.add_extension(_usage(signs=False), True)
        builder = builder.add_extension(x509.ExtendedKeyUsage(list(use)), False)
        builder = builder.add_extension(x509.SubjectAlternativeName(list(names)), False)
        builder = builder.add_extension(_authority_key(own), False)
        return builder.sign(self._key, self._hash())

    def _hash(self) -> hashes.SHA256 | None:
        return None if isinstance(self._key, ed25519.Ed25519PrivateKey) else hashes.SHA256()

    def issued(self, certificate: x509.Certificate) -> bool:
        """Whether this authority signed a certificate; its dates are not looked at."""
        try:
            certificate.verify_directly_issued_by(self.certificates[0])
        except (ValueError, TypeError, InvalidSignature):
            return False
        return True

    def revocation_list(self, revoked: Iterable[Revoked], now: float) -> bytes:
        """The list of revoked certificates, in PEM, as brokers read it.

        Args:
            revoked: All of them.
            now: Seconds since the epoch.
        """
        own = self.certificates[0]
        builder = x509.CertificateRevocationListBuilder().issuer_name(own.subject)
        builder = builder.last_update(_moment(now - _BACKDATED_S)).next_update(_moment(now + CRL_S))
        for one in revoked:
            builder = builder.add_revoked_certificate(
                x509.RevokedCertificateBuilder()
                .serial_number(one.serial)
                .revocation_date(_moment(one.at))
                .build()
            )
        builder = builder.add_extension(x509.CRLNumber(int(now * 1000)), False)
        builder = builder.add_extension(_authority_key(own), False)
        return builder.sign(self._key, self._hash()).public_bytes(serialization.Encoding.PEM)


def read_certificates(pem: bytes) -> list[x509.Certificate]:
    """All certificates in PEM; raises SigningKeyError where there is none."""
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError as error:
        raise SigningKeyError(f"These are no certificates in PEM: {error}.") from error


def pin_of(certificate: x509.Certificate) -> bytes:
    """The SHA-256 of a certificate."""
    return hashlib.sha256(certificate.public_bytes(serialization.Encoding.DER)).digest()


def key_digest(public: PublicNumbers) -> str:
    """Names a public key, in hexadecimal."""
    der = public.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return hashlib.sha256(der).hexdigest()


def read_request(csr: bytes) -> PublicNumbers:
    """The key of a request for a certificate, proven to be the sender's.

    Raises:
        MalformedPayloadError: It is no request, or not signed by its own key.
        EnrolmentError: The key is too weak, or of a kind that peers do not know.
    """
    if len(csr) > _MOST_REQUEST:
        raise MalformedPayloadError("The request for a certificate is too large.")
    try:
        request = x509.load_pem_x509_csr(csr)
        genuine = request.is_signature_valid
        public = request.public_key()
    except Exception as error:  # of a stranger's bytes, the parser raises several kinds
        raise MalformedPayloadError(f"This is no request for a certificate: {error}.") from error
    if not genuine:
        raise MalformedPayloadError("The request for a certificate is not signed by its own key.")
    strong = isinstance(public, ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey) or (
        isinstance(public, rsa.RSAPublicKey) and public.key_size >= _LEAST_RSA_BITS
    )
    if not strong or (
        isinstance(public, ec.EllipticCurvePublicKey)
        and not isinstance(public.curve, ec.SECP256R1 | ec.SECP384R1)
    ):
        raise EnrolmentError("The device's key is too weak.", hint="Use ECDSA on P-256.")
    assert isinstance(public, PublicNumbers)
    return public


def _builder(
    subject: x509.Name, issuer: x509.Name, public: PublicNumbers, now: float, lifetime_s: float
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(_moment(now - _BACKDATED_S))
        .not_valid_after(_moment(now + lifetime_s))
    )


def _authority_key(own: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    try:
        extension = own.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    except x509.ExtensionNotFound:
        public = own.public_key()
        assert isinstance(public, PublicNumbers)
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(public)
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(extension.value)


def _may_sign(certificate: x509.Certificate) -> bool:
    try:
        found = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    except x509.ExtensionNotFound:
        return False
    return found.value.ca


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs,
        crl_sign=signs,
        encipher_only=False,
        decipher_only=False,
    )


def _host(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        pass
    if not _HOST.fullmatch(text) or len(text) > 253:  # noqa: PLR2004 - of DNS
        raise UsageError(f"{text[:100]!a} is no host's name or address.", where="host")
    return x509.DNSName(text)


def _moment(seconds: float) -> dt.datetime:
    return dt.datetime.fromtimestamp(seconds, dt.UTC)

"""Certificates made for a test: an authority, and what it signs."""

from __future__ import annotations

import ipaddress
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_PEM = serialization.Encoding.PEM
_DAY = timedelta(days=1)


class Authority:
    """Signs certificates for localhost and for clients."""

    def __init__(self, name: str = "authority") -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _named(name)
        self.certificate = (
            _builder(self._name, self._name, self._key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(self._key, hashes.SHA256())
        )

    def write(self, path: Path) -> Path:
        """The authority's own certificate, for those who trust it."""
        path.write_bytes(self.certificate.public_bytes(_PEM))
        return path

    def issue(
        self, folder: Path, name: str, passphrase: str = "", host: str = "localhost"
    ) -> tuple[Path, Path]:
        """A certificate and its key as files NAME.pem and NAME.key, for a host and 127.0.0.1."""
        key = ec.generate_private_key(ec.SECP256R1())
        names = [x509.DNSName(host), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        certificate = (
            _builder(_named(name), self._name, key.public_key())
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        secrecy: serialization.KeySerializationEncryption = serialization.NoEncryption()
        if passphrase:
            secrecy = serialization.BestAvailableEncryption(passphrase.encode())
        cert_path, key_path = folder / f"{name}.pem", folder / f"{name}.key"
        cert_path.write_bytes(certificate.public_bytes(_PEM))
        key_path.write_bytes(key.private_bytes(_PEM, serialization.PrivateFormat.PKCS8, secrecy))
        return cert_path, key_path


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _DAY)
        .not_valid_after(now + _DAY)
    )


def api_tls(folder: Path) -> ssl.SSLContext:
    """For a server that asks for certificates and takes who has none: a cluster's API.

    The authority is in `ca.pem`, and `api` and `me` are issued, below the folder.
    """
    authority = Authority()
    ca = authority.write(folder / "ca.pem")
    for name in ("api", "me"):
        authority.issue(folder, name)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=ca)
    tls.load_cert_chain(folder / "api.pem", folder / "api.key")
    tls.verify_mode = ssl.CERT_OPTIONAL
    return tls

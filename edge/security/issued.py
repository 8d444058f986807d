"""Records of claims and certificates: what was given out, and what may follow it."""

from __future__ import annotations

import logging
from typing import Any

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

from edge.security import authority as authorities
from edge.security.letters import RenewRequest, renewal_bytes
from edge.workspace import Connection
from scoring.errors import (
    AlreadyExistsError,
    EnrolmentError,
    MalformedPayloadError,
    SigningKeyError,
)

logger = logging.getLogger(__name__)


class Certificate(msgspec.Struct, frozen=True, kw_only=True):
    """One that was given out.

    Attributes:
        serial: In hexadecimal.
        site: Of the device.
        device: Its name.
        issued_at: Seconds since the epoch.
        expires_at: Likewise.
        revoked_at: Likewise; None for a good one.
        reason: Why it was revoked.
    """

    serial: str
    site: str
    device: str
    issued_at: float
    expires_at: float
    revoked_at: float | None = None
    reason: str | None = None


class PendingClaim(msgspec.Struct, frozen=True, kw_only=True):
    """A claim that nobody has used.

    Attributes:
        id: The first part of the token.
        site: Of the device to be.
        device: Its name.
        expires_at: Seconds since the epoch.
    """

    id: str
    site: str
    device: str
    expires_at: float


def require_unique(connection: Connection, site: str, device: str, now: float) -> None:
    """Raises AlreadyExistsError where another site has, or is about to have, such a device."""
    rows = connection.execute(
        "SELECT site FROM fleet_certificates WHERE device = :device AND site <> :site "
        "AND revoked_at IS NULL UNION SELECT site FROM fleet_claims "
        "WHERE device = :device AND site <> :site AND (used_at IS NOT NULL OR expires_at > :now)",
        device=device,
        site=site,
        now=now,
    )
    if rows:
        raise AlreadyExistsError(
            f"The site {rows[0]['site']} has a device {device} already.",
            hint="Names are unique in a fleet: brokers know devices by their name alone.",
        )


def issued_for(connection: Connection, claim: dict[str, Any], key: str) -> str:
    """The certificate that a claim was used for before: its answer was lost."""
    rows = connection.execute(
        "SELECT pem FROM fleet_certificates WHERE device = :device AND key_digest = :key "
        "AND revoked_at IS NULL",
        device=claim["device"],
        key=key,
    )
    return str(rows[0]["pem"]) if rows else ""


def successor(connection: Connection, serial: str, key: str) -> str:
    """The certificate that this one was renewed to, if its answer was lost; else nothing."""
    rows = connection.execute(
        "SELECT * FROM fleet_certificates WHERE follows = :serial", serial=serial
    )
    if not rows:
        return ""
    if rows[0]["key_digest"] != key:
        logger.warning("device cloned device=%s serial=%s", rows[0]["device"], serial)
        raise EnrolmentError(
            f"The certificate of {rows[0]['device']} was renewed before, for another key: two "
            "machines have this identity.",
            hint="Revoke the device ('fieldpost device revoke') and enrol the right one again.",
        )
    return str(rows[0]["pem"])


def read(pem: str) -> x509.Certificate:
    """A device's certificate; raises MalformedPayloadError where it is none."""
    try:
        return authorities.read_certificates(pem.encode())[0]
    except SigningKeyError as error:
        raise MalformedPayloadError("The certificate to renew cannot be read.") from error


def proves(certificate: x509.Certificate, request: RenewRequest) -> bool:
    """Whether a request to renew is signed by the key of the certificate."""
    public, data = certificate.public_key(), renewal_bytes(request.csr)
    proof = bytes.fromhex(request.proof)
    try:
        if isinstance(public, ec.EllipticCurvePublicKey):
            public.verify(proof, data, ec.ECDSA(hashes.SHA256()))
        elif isinstance(public, rsa.RSAPublicKey):
            public.verify(proof, data, padding.PKCS1v15(), hashes.SHA256())
        elif isinstance(public, ed25519.Ed25519PublicKey):
            public.verify(proof, data)
        else:
            return False
    except InvalidSignature:
        return False
    return True

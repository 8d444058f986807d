"""Who is let in: claims, certificates, renewals, revocations, in the workspace's database.

A claim is used up in the same transaction in which its certificate is recorded; the device that
used it may ask again with the same key when the answer was lost. A certificate has one successor:
a second one for another key means that two machines have the same identity.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec
from cryptography.hazmat.primitives import serialization

from edge.protocol.names import check_name
from edge.security import authority as authorities
from edge.security import claims, issued
from edge.security.authority import Authority, Revoked
from edge.security.claims import Claim
from edge.security.issued import Certificate, PendingClaim
from edge.security.letters import EnrolAnswer, EnrolRequest, RenewRequest
from edge.security.names import Who
from edge.security.repository import Repository
from edge.security.tables import create_tables
from edge.workspace import Connection, Database
from scoring import digest as digests
from scoring.errors import (
    EnrolmentError,
    NotFoundError,
    UsageError,
)

logger = logging.getLogger(__name__)

DAY_S: Final = 86400.0
CLAIM_S: Final = DAY_S
LATE_S: Final = 365 * DAY_S
"""A device that was away for so long may still renew with its expired certificate."""


class Enrolment:
    """Lets devices in; any number of controllers may do it at once.

    Args:
        database: Of the workspace.
        authority: Signs certificates.
        repository: The signed metadata; None for a fleet that has none yet.
        settings: For devices: where the broker and the controller are.
        lifetime_s: Of a device's certificate.
        clock: Seconds since the epoch.
    """

    def __init__(
        self,
        database: Database,
        authority: Authority,
        repository: Repository | None = None,
        *,
        settings: Mapping[str, str] | None = None,
        lifetime_s: float = authorities.DEVICE_S,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self.authority = authority
        self._repository = repository
        self._settings = dict(settings or {})
        self._lifetime_s = lifetime_s
        self._clock = clock
        create_tables(database)

    def claim(self, site: str, device: str, *, lifetime_s: float = CLAIM_S) -> str:
        """A token with which one device may join, once.

        A device that is there already may be claimed again: for new hardware of the same name.

        Args:
            site: Where the device is.
            device: Its name, unique in the fleet: brokers know it by that alone.
            lifetime_s: Until when.

        Returns:
            The token, which is kept nowhere.

        Raises:
            InvalidNameError: A name does not fill exactly one level of a topic.
            AlreadyExistsError: Another site has a device of that name.
            UsageError: The lifetime is none.
        """
        check_name(site, "site")
        check_name(device, "device")
        if not 0 < lifetime_s <= LATE_S:
            raise UsageError("A token is good for up to a year.", where="lifetime_s")
        version, digest = self._first_root()
        made = Claim.generate(self.authority.pin, digest)
        with self._database.write() as connection:
            issued.require_unique(connection, site, device, self._clock())
            connection.execute(
                "INSERT INTO fleet_claims (id, digest, site, device, root_version, expires_at) "
                "VALUES (:id, :digest, :site, :device, :root_version, :expires_at)",
                id=made.id,
                digest=made.digest,
                site=site,
                device=device,
                root_version=version,
                expires_at=self._clock() + lifetime_s,
            )
        return made.text

    def _first_root(self) -> tuple[int, bytes]:
        if self._repository is None or not self._repository.exists():
            return 0, bytes(32)
        version = self._repository.root_version()
        digest = digests.of_bytes(self._repository.root(version))
        return version, bytes.fromhex(digests.parse(digest))

    def claims(self) -> list[PendingClaim]:
        """The claims that may still be used."""
        with self._database.read() as connection:
            rows = connection.execute(
                "SELECT id, site, device, expires_at FROM fleet_claims "
                "WHERE used_at IS NULL AND expires_at > :now ORDER BY expires_at",
                now=self._clock(),
            )
        return [msgspec.convert(row, PendingClaim) for row in rows]

    def cancel(self, id: str) -> None:  # noqa: A002 - what it is called everywhere
        """Takes a claim back.

        Raises:
            NotFoundError: There is none that may still be used.
        """
        with self._database.write() as connection:
            rows = connection.execute(
                "DELETE FROM fleet_claims WHERE id = :id AND used_at IS NULL RETURNING id", id=id
            )
        if not rows:
            raise NotFoundError(f"There is no open claim {id[:64]!a}.")

    def enrol(self, request: EnrolRequest) -> EnrolAnswer:
        """Lets a device in.

        Raises:
            EnrolmentError: Its token is unknown, used by another key, or expired.
            MalformedPayloadError: Its request for a certificate is none.
        """
        claim = claims.parse(request.token)
        csr = request.csr.encode()
        key = authorities.key_digest(authorities.read_request(csr))
        with self._database.write() as connection:
            row = self._take(connection, claim, key)
            pem = issued.issued_for(connection, row, key) if row["used_by"] else ""
            if not pem:
                who = Who(row["site"], row["device"])
                pem = self._issue(connection, csr, key, who, follows=None)
        logger.info("device enrolled site=%s device=%s", row["site"], row["device"])
        return self._answer(Who(row["site"], row["device"]), pem, row["root_version"])

    def _take(self, connection: Connection, claim: Claim, key: str) -> dict[str, Any]:
        """Uses a claim up; returns it as it was before."""
        now = self._clock()
        rows = connection.execute("SELECT * FROM fleet_claims WHERE id = :id", id=claim.id)
        if not rows or not claim.matches(rows[0]["digest"]):
            raise EnrolmentError(
                "This token is not known here.",
                hint="Make one with 'fieldpost device claim', for this fleet.",
            )
        row = rows[0]
        if row["expires_at"] <= now:
            raise EnrolmentError("This token has expired.", hint="Make a new one.")
        if row["used_by"] not in {None, key}:
            raise EnrolmentError(
                "This token was used by another device.",
                hint="If it was not yours, revoke that device and make a new token.",
            )
        connection.execute(
            "UPDATE fleet_claims SET used_at = :now, used_by = :key WHERE id = :id",
            now=now,
            key=key,
            id=claim.id,
        )
        return row

    def renew(self, request: RenewRequest) -> EnrolAnswer:
        """Gives a device its next certificate.

        Raises:
            EnrolmentError: The certificate that it has is not ours, revoked, too old, has a
                successor for another key, or is not the sender's.
            MalformedPayloadError: The request is none.
        """
        certificate = issued.read(request.certificate)
        if not self.authority.issued(certificate) or not issued.proves(certificate, request):
            raise EnrolmentError(
                "The certificate to renew is not of this fleet, or not the sender's.",
                hint="Enrol the device again, with a new token.",
            )
        csr = request.csr.encode()
        key = authorities.key_digest(authorities.read_request(csr))
        serial = f"{certificate.serial_number:x}"
        with self._database.write() as connection:
            row = self._renewable(connection, serial)
            who = Who(row["site"], row["device"])
            pem = issued.successor(connection, serial, key) or self._issue(
                connection, csr, key, who, follows=serial
            )
        return self._answer(who, pem, 0)

    def _renewable(self, connection: Connection, serial: str) -> dict[str, Any]:
        rows = connection.execute(
            "SELECT * FROM fleet_certificates WHERE serial = :serial", serial=serial
        )
        if not rows:
            raise EnrolmentError(
                "This certificate is not on record.", hint="Enrol the device again."
            )
        row = rows[0]
        if row["revoked_at"] is not None:
            raise EnrolmentError("This certificate was revoked.", hint="Enrol the device again.")
        if row["expires_at"] + LATE_S < self._clock():
            raise EnrolmentError(
                "This certificate expired long ago.", hint="Enrol the device again."
            )
        return row

    def _issue(
        self, connection: Connection, csr: bytes, key: str, who: Who, *, follows: str | None
    ) -> str:
        now = self._clock()
        made = self.authority.issue_device(
            csr, site=who.site, device=who.device, now=now, lifetime_s=self._lifetime_s
        )
        pem = made.public_bytes(serialization.Encoding.PEM).decode()
        connection.execute(
            "INSERT INTO fleet_certificates "
            "(serial, site, device, key_digest, pem, issued_at, expires_at, follows) VALUES "
            "(:serial, :site, :device, :key_digest, :pem, :issued_at, :expires_at, :follows)",
            serial=f"{made.serial_number:x}",
            site=who.site,
            device=who.device,
            key_digest=key,
            pem=pem,
            issued_at=now,
            expires_at=made.not_valid_after_utc.timestamp(),
            follows=follows,
        )
        return pem

    def _answer(self, who: Who, pem: str, root_version: int) -> EnrolAnswer:
        root = ""
        if root_version and self._repository is not None:
            root = self._repository.root(root_version).decode()
        return EnrolAnswer(
            site=who.site,
            device=who.device,
            certificate=pem,
            authority=self.authority.pem.decode(),
            root=root,
            settings=self._settings,
        )

    def certificates(self, device: str = "") -> list[Certificate]:
        """What was given out, the newest last; of one device or of all."""
        with self._database.read() as connection:
            rows = connection.execute(
                "SELECT serial, site, device, issued_at, expires_at, revoked_at, reason "
                "FROM fleet_certificates WHERE :device = '' OR device = :device "
                "ORDER BY issued_at, serial",
                device=device,
            )
        return [msgspec.convert(row, Certificate) for row in rows]

    def revoke(self, device: str, reason: str = "") -> list[Certificate]:
        """Revokes all certificates of a device, and takes its open claims back.

        What follows is a new list for the broker: `revocation_list`.

        Returns:
            Those that were good until now.

        Raises:
            NotFoundError: It has none.
        """
        now = self._clock()
        good = [one for one in self.certificates(device) if one.revoked_at is None]
        with self._database.write() as connection:
            connection.execute(
                "UPDATE fleet_certificates SET revoked_at = :now, reason = :reason "
                "WHERE device = :device AND revoked_at IS NULL",
                now=now,
                reason=reason,
                device=device,
            )
            connection.execute("DELETE FROM fleet_claims WHERE device = :device", device=device)
        if not good:
            raise NotFoundError(
                f"The device {device[:64]!a} has no certificate to revoke.",
                hint="See 'fieldpost device list'.",
            )
        return good

    def revoked(self) -> list[Certificate]:
        """The revoked certificates that would still be good: what brokers have to know."""
        late = self._clock() - DAY_S
        return [
            one
            for one in self.certificates()
            if one.revoked_at is not None and one.expires_at > late
        ]

    def is_revoked(self, serial: int) -> bool:
        """Whether the certificate with a number was revoked, or never given out."""
        with self._database.read() as connection:
            rows = connection.execute(
                "SELECT revoked_at FROM fleet_certificates WHERE serial = :serial",
                serial=f"{serial:x}",
            )
        return not rows or rows[0]["revoked_at"] is not None

    def revocation_list(self) -> bytes:
        """The list of revoked certificates for a broker, in PEM."""
        entries = [Revoked(int(one.serial, 16), one.revoked_at or 0.0) for one in self.revoked()]
        return self.authority.revocation_list(entries, self._clock())

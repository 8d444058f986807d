"""Keys with certificates for brokers and controllers, made where they are used."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from edge.security.authority import Authority
from edge.security.identity import request_for
from scoring import durable

_MOMENT_S: Final = 60.0


class Pair(NamedTuple):
    """A key and its certificate, in PEM.

    Attributes:
        certificate: With the authority's chain.
        key: Not encrypted; no text of this shows it.
    """

    certificate: bytes
    key: bytes

    def __repr__(self) -> str:
        return "Pair()"

    def write(self, path: Path) -> Path:
        """Writes both into one file, as `load_cert_chain` takes it, for its owner alone.

        Raises:
            WorkspaceError: It cannot be written.
        """
        with durable.storage_errors(str(path)):
            durable.make_folder(path.parent, mode=0o700)
        durable.write_bytes(path, self.key + self.certificate, mode=0o600)
        return path


def for_server(authority: Authority, hosts: Iterable[str], now: float) -> Pair:
    """A broker's; raises like `Authority.issue_server`."""
    key = ec.generate_private_key(ec.SECP256R1())
    made = authority.issue_server(key.public_key(), hosts, now)
    return Pair(made.public_bytes(serialization.Encoding.PEM), _pem_of(key))


def for_controller(authority: Authority, number: int, hosts: Iterable[str], now: float) -> Pair:
    """A controller's, for both the broker and devices; raises like `issue_controller`."""
    key = ec.generate_private_key(ec.SECP256R1())
    made = authority.issue_controller(key.public_key(), number, hosts, now)
    return Pair(made.public_bytes(serialization.Encoding.PEM), _pem_of(key))


def in_place_of(authority: Authority, site: str, device: str, now: float) -> Pair:
    """A device's, for a minute: whoever shows it to a broker ends the connection of that device.

    Raises:
        InvalidNameError: A name does not fill exactly one level of a topic.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    made = authority.issue_device(
        request_for(key), site=site, device=device, now=now, lifetime_s=_MOMENT_S
    )
    return Pair(made.public_bytes(serialization.Encoding.PEM), _pem_of(key))


def _pem_of(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )

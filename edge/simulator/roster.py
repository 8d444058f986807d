"""Simulated devices in the records of a fleet, and what they show to its broker."""

from __future__ import annotations

import os
import ssl
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from edge.controller.records import Fleet
from edge.security.authority import Authority
from edge.security.identity import authority_context, request_for
from edge.security.metadatastore import TIMESTAMP
from edge.security.repository import Repository
from edge.simulator.crowd import Known
from scoring.errors import PayloadTooLargeError, UsageError

_CERTIFICATE_S: Final = 7 * 86400.0


def names(prefix: str, count: int) -> list[str]:
    """Names of so many devices: `sim-0001`, `sim-0002` and so on."""
    width = max(4, len(str(count)))
    return [f"{prefix}-{number:0{width}}" for number in range(1, count + 1)]


def enlist(
    fleet: Fleet, wanted: Sequence[str], site: str, tags: Mapping[str, str] | None = None
) -> list[Known]:
    """Makes devices known that are not; what their boot counters were is gone on with.

    Raises:
        UsageError: One of these names is that of a real device, or a tag is none.
        InvalidNameError: A name or the site is none.
    """
    known = {device.name: device for device in fleet.devices()}
    for name in wanted:
        device = known.get(name)
        if device is not None and device.seen_at and not device.facts.get("simulated"):
            raise UsageError(
                f"{name} is a real device of this fleet.",
                hint="Choose another beginning of names with --name.",
                where="name",
            )
    made = fleet.add_devices(wanted, site, tags)
    return [Known(name=one.name, site=one.site, boot=one.boot) for one in made]


class Metadata:
    """The fleet's signed metadata, read once for many devices.

    Args:
        repository: Of the fleet.
    """

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._kept: dict[str, bytes] = {}

    @property
    def root(self) -> bytes:
        """The newest root: what a device that is enrolled now begins with.

        Raises:
            NotFoundError: The fleet has no signed metadata.
        """
        return self._repository.root()

    def __call__(self, name: str, most_bytes: int) -> bytes | None:
        """A document; None where there is none of that name.

        Raises:
            PayloadTooLargeError: It is longer than asked for.
        """
        found = self._kept.get(name) or self._repository.get(name)
        if found is not None and len(found) > most_bytes:
            raise PayloadTooLargeError(f"{name} has more than {most_bytes} bytes.")
        if found is not None and name != TIMESTAMP:  # all others never change
            self._kept[name] = found
        return found


class Certificates:
    """Gives each simulated device a certificate, for as long as the process lives.

    Args:
        authority: Signs them: the fleet's.
        site: Of the devices.
    """

    def __init__(self, authority: Authority, site: str) -> None:
        self._authority, self._site = authority, site
        self._made: dict[str, bytes] = {}

    def __call__(self, device: str) -> ssl.SSLContext:
        """What a device connects with."""
        context = authority_context(self._authority.pem.decode())
        pem = self._made.get(device) or self._made.setdefault(device, self._issue(device))
        # The library of Python reads files alone: this one is nobody else's, and gone at once.
        with tempfile.TemporaryDirectory(prefix="fieldpost-") as folder:
            path = Path(folder) / "device.pem"
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), "wb") as file:
                file.write(pem)
            context.load_cert_chain(path)
        return context

    def _issue(self, device: str) -> bytes:
        key = ec.generate_private_key(ec.SECP256R1())
        made = self._authority.issue_device(
            request_for(key),
            site=self._site,
            device=device,
            now=time.time(),
            lifetime_s=_CERTIFICATE_S,
        )
        private = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        return private + made.public_bytes(serialization.Encoding.PEM)

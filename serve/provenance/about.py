"""What a document is about."""

from __future__ import annotations

import uuid

import msgspec

from scoring import __version__
from serve.provenance.artifacts import Subject
from serve.provenance.inventory import Inventory
from serve.provenance.names import oci_purl

TOOL = f"fieldpost-{__version__}"


class About(msgspec.Struct, frozen=True):
    """What a document is about: the package itself, or an image that holds it.

    Attributes:
        subject: The manifest.
        inventory: What the package holds.
    """

    subject: Subject
    inventory: Inventory

    @property
    def name(self) -> str:
        """`iris:1`; a script has no version."""
        return ":".join(filter(None, (self.inventory.name, self.inventory.version)))

    @property
    def purl(self) -> str:
        """The manifest as a package URL."""
        return oci_purl(self.inventory.name, self.subject.digest)

    @property
    def uuid(self) -> uuid.UUID:
        """The same for the same manifest, whoever writes the document and whenever."""
        return uuid.uuid5(uuid.NAMESPACE_URL, f"{self.purl}#{TOOL}")

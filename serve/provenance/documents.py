"""The documents about a package, or about an image of it: SBOMs and provenance. No I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import msgspec

from serve.provenance import artifacts, checks, slsa
from serve.provenance.about import About
from serve.provenance.cyclonedx import cyclonedx_document
from serve.provenance.spdx import spdx_document

if TYPE_CHECKING:
    from serve.provenance.artifacts import Artifact

Format = Literal["spdx", "cyclonedx"]
FORMATS: tuple[Format, ...] = ("spdx", "cyclonedx")


class Documents(msgspec.Struct, frozen=True):
    """What can be said about a manifest.

    Attributes:
        about: The manifest, and what is in it.
        spdx: As JSON. Those of an image leave out its model, see `About.software`.
        cyclonedx: The same.
        provenance: An in-toto statement; None where nobody recorded the build.
    """

    about: About
    spdx: bytes
    cyclonedx: bytes
    provenance: bytes | None

    @property
    def statements(self) -> dict[str, bytes]:
        """Predicate type to in-toto statement: what is signed."""
        found = [
            checks.Attached(artifacts.SPDX_TYPE, self.spdx),
            checks.Attached(artifacts.CYCLONEDX_TYPE, self.cyclonedx),
        ]
        if self.provenance is not None:
            found.append(checks.Attached(artifacts.PROVENANCE_TYPE, self.provenance))
        return slsa.statements_of(found, self.about.subject.digest)

    @property
    def artifacts(self) -> tuple[Artifact, ...]:
        """The documents as OCI artifacts, unsigned: what scanners look for beside an image."""
        subject = self.about.subject
        lasting = subject.digest != self.about.inventory.package
        found = [
            msgspec.structs.replace(
                artifacts.document(content, kind, subject, title=title), lasting=lasting
            )
            for content, kind, title in (
                (self.spdx, artifacts.SPDX_TYPE, "sbom.spdx.json"),
                (self.cyclonedx, artifacts.CYCLONEDX_TYPE, "sbom.cdx.json"),
            )
        ]
        if self.provenance is not None:
            title = artifacts.PROVENANCE_TITLE
            found.append(artifacts.statement(self.provenance, slsa.PREDICATE, subject, title=title))
        return tuple(found)


def describe(about: About, provenance: bytes | None) -> Documents:
    """Writes the documents.

    Args:
        about: The manifest, and what is in it.
        provenance: Of the package, where it was recorded.
    """
    inventory, told = about.inventory, about
    if about.subject.digest != inventory.package:
        told = about.software
        if provenance is not None:
            base = (inventory.base.name, inventory.base.digest) if inventory.base else ("", "")
            provenance = slsa.for_image(provenance, about.subject.digest, base)
    return Documents(about, spdx_document(told), cyclonedx_document(told), provenance)

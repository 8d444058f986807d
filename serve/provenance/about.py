"""What a document is about."""

from __future__ import annotations

import uuid

import msgspec

from scoring import __version__
from scoring.packages.documents import LAYER_TYPE
from serve.provenance.artifacts import Subject
from serve.provenance.inventory import Inventory
from serve.provenance.names import oci_purl

TOOL = f"fieldpost-{__version__}"
SHARED = (
    "What images share whatever their model: the environment, named by its layer, the runtime and "
    "the base. The model of an image is in the image's provenance."
)


class About(msgspec.Struct, frozen=True):
    """What a document is about: the package itself, or an image that holds it.

    Attributes:
        subject: The manifest.
        inventory: What the package holds.
        shared: Whether it is about what the image shares with those of other models: see
            `software`.
    """

    subject: Subject
    inventory: Inventory
    shared: bool = False

    @property
    def software(self) -> About:
        """The same without the model: environment, runtime and base, named by their layers.

        What is said of them is the same for every model, byte for byte, so that a registry has it
        once. The manifest that carries it names the image.
        """
        environment = self.inventory.layers["env"]
        return About(
            subject=Subject(environment.digest, environment.size, LAYER_TYPE),
            inventory=msgspec.structs.replace(
                self.inventory,
                package="",
                version="",
                model_digest="",
                format="",
                runtime="",
                model_files=(),
            ),
            shared=True,
        )

    @property
    def name(self) -> str:
        """`iris:1`; a script has no version."""
        return ":".join(filter(None, (self.inventory.name, self.inventory.version)))

    @property
    def purl(self) -> str:
        """The manifest as a package URL; empty for what is shared, which has no manifest."""
        return "" if self.shared else oci_purl(self.inventory.name, self.subject.digest)

    @property
    def uuid(self) -> uuid.UUID:
        """The same for the same content, whoever writes the document and whenever."""
        named = self.purl or "+".join([self.inventory.name, *self._parts])
        return uuid.uuid5(uuid.NAMESPACE_URL, f"{named}#{TOOL}")

    @property
    def _parts(self) -> list[str]:
        """The digests of what is shared."""
        base, layers = self.inventory.base, self.inventory.layers
        digests = [layers[name].digest for name in ("env", "runtime") if name in layers]
        return [*digests, base.name, base.digest] if base else digests

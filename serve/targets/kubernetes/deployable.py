"""What is rendered: a revision of a deployment, and what its package tells of itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from scoring.errors import UsageError
from scoring.packages.documents import PREFIX
from serve.distribution.reference import parse_reference
from serve.targets.kubernetes.settings import KubernetesSettings

if TYPE_CHECKING:
    from scoring.packages.reading import Package
    from scoring.packages.storage import Blobs

_EMPTY_ARCHIVE = 1024
"""Of the code layer of a package without a script: an archive without entries."""


class PackageFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What a package tells of itself.

    Attributes:
        digest: Of the package.
        model: The model's name; empty for none.
        version: The model's version; empty for none.
        platforms: `linux/amd64` and the like.
        environment_bytes: Of its environment, unpacked; the largest of its platforms.
        model_bytes: Of its model, unpacked.
        script: It may do anything, and ask anyone.
    """

    digest: str
    model: str = ""
    version: str = ""
    platforms: tuple[str, ...] = ("linux/amd64",)
    environment_bytes: int = 0
    model_bytes: int = 0
    script: bool = True


class Deployable(msgspec.Struct, frozen=True, kw_only=True):
    """A revision of a deployment.

    Attributes:
        name: Of the deployment.
        image: `REGISTRY/NAME@sha256:…`.
        package: What is in it.
        settings: As `settings.parse` gives them.
        namespace: Empty leaves it to whoever applies the objects.
        workspace: The workspace's identity; empty for objects that leave our hands.
        revision: Its number.
        monitors: The cluster knows ServiceMonitors.
        outside: The Secret of `env.*` is somebody else's: it is named and not written.
    """

    name: str
    image: str
    package: PackageFacts
    settings: KubernetesSettings
    namespace: str = ""
    workspace: str = ""
    revision: int = 1
    monitors: bool = False
    outside: bool = False

    def __post_init__(self) -> None:
        if not parse_reference(self.image).digest.startswith("sha256:"):
            raise UsageError(
                f"The image {self.image!r} is not named by its digest.",
                hint="Write REGISTRY/NAME@sha256:….",
                where="image",
            )

    @property
    def repository(self) -> str:
        """Where the image is, without digest and tag."""
        reference = parse_reference(self.image)
        return self.image.partition("@")[0].removesuffix(f":{reference.tag}")

    @property
    def reference(self) -> str:
        """The image by its digest alone, whatever tag it was written with."""
        return f"{self.repository}@{parse_reference(self.image).digest}"

    def __repr__(self) -> str:
        return f"Deployable({self.name!r}, revision={self.revision}, image={self.image!r})"


def facts_of(digest: str, blobs: Blobs) -> PackageFacts:
    """Reads what a package, of one platform or several, tells of itself.

    Raises:
        NotFoundError: It is not in the store.
        PackagingError: It is no package.
    """
    from scoring.packages.platformindex import package_manifests  # noqa: PLC0415 - reads blobs
    from scoring.packages.reading import read_package  # noqa: PLC0415

    index = package_manifests(digest, blobs)
    digests = [digest] if index is None else [entry.digest for entry in index.manifests]
    found = [read_package(each, blobs) for each in digests]
    return PackageFacts(
        digest=digest,
        model=found[0].annotations.get(f"{PREFIX}model.name", ""),
        version=found[0].annotations.get(f"{PREFIX}model.version", ""),
        platforms=tuple(sorted(each.platform for each in found)),
        environment_bytes=max(_size(each, "env") for each in found),
        model_bytes=max(_size(each, "model") for each in found),
        script=any(_has_script(each) for each in found),
    )


def _has_script(package: Package) -> bool:
    """Also where the manifest does not tell."""
    code = [each.unpacked_size for each in package.layers if each.name == "code"]
    return any(size == 0 or size > _EMPTY_ARCHIVE for size in code)


def _size(package: Package, layer: str) -> int:
    return sum(each.unpacked_size or each.size for each in package.layers if each.name == layer)

"""Which base a package gets: the one that is given, its own, this user's, or Python's own image."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import msgspec

from scoring import digest as digests
from scoring import durable
from scoring.errors import NotFoundError, UsageError, WorkspaceError
from scoring.packages.documents import PREFIX
from serve.packaging.images.bases import Base, is_local, open_local
from serve.packaging.images.basestore import BaseStore
from serve.packaging.plan import BaseImage

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

BASE_VARIABLE = "FIELDPOST_BASE"

_NAME = "org.opencontainers.image.base.name"
_DIGEST = "org.opencontainers.image.base.digest"
_PINS = "bases.json"


def for_platform(text: str, platform: str) -> str:
    """The base for a platform where each has its own: `linux/amd64=BASE,linux/arm64=BASE`.

    Raises:
        UsageError: There is none for this platform.
    """
    if not text.startswith("linux/") or "=" not in text:
        return text
    named = dict(part.partition("=")[::2] for part in text.split(","))
    if not named.get(platform):
        raise UsageError(
            f"--base names no base for {platform}.", hint=f"Add '{platform}=BASE' to it."
        )
    return named[platform]


class BaseFinder:
    """Finds bases for packages, and remembers which digests the names of default ones had.

    Args:
        workspace: The folder of the workspace's blobs.
        given: The base that was asked for; None for the package's choice.
        environ: The environment.
    """

    def __init__(
        self, workspace: Path, given: str | None = None, environ: Mapping[str, str] = os.environ
    ) -> None:
        self.store = BaseStore(workspace / "cache" / "bases")
        self._pins = workspace / _PINS
        self._given = given
        self._environ = environ

    def base(self, platform: str, annotations: Mapping[str, str]) -> Base:
        """The base of a package.

        Args:
            platform: The package's.
            annotations: Those of its manifest.

        Raises:
            NotFoundError: There is no such base.
            PackagingError: It has no image for the platform.
            UnreachableError: It is in a registry that does not answer.
        """
        name, digest = annotations.get(_NAME, ""), annotations.get(_DIGEST, "")
        if self._given:
            return self.open(for_platform(self._given, platform), platform)
        if name:
            return self.open(f"{name}@{digest}" if digest else name, platform)
        if digest:
            return self._kept(digest, platform)
        if named := self._environ.get(BASE_VARIABLE, ""):
            return self.open(for_platform(named, platform), platform)
        return self._default(annotations.get(PREFIX + "python", ""), platform)

    def wanted(self, platform: str, annotations: Mapping[str, str]) -> str:
        """What a package's base is called, without asking a registry.

        Args:
            platform: The package's.
            annotations: Those of its manifest.

        Returns:
            A name in a registry, with the digest where one is known, or a place on this machine;
            empty for a base that came from a file and is in the workspace.
        """
        name, digest = annotations.get(_NAME, ""), annotations.get(_DIGEST, "")
        if self._given:
            return for_platform(self._given, platform)
        if name or digest:
            return f"{name}@{digest}" if name and digest else name
        if named := self._environ.get(BASE_VARIABLE, ""):
            return for_platform(named, platform)
        default = f"docker.io/library/python:{annotations.get(PREFIX + 'python', '')}-slim"
        pinned = self._read_pins().get(f"{default} {platform}", "")
        return f"{default}@{pinned}" if pinned else default

    def open(self, text: str, platform: str) -> Base:
        """The base that a user names; raises as `open_local` and `open_registry` do."""
        if is_local(text):
            return open_local(text, platform, self.store)
        from serve.packaging.images.registrybase import open_registry  # noqa: PLC0415 - heavy

        return open_registry(text, platform, self.store)

    def pinned(self, text: str, platform: str) -> BaseImage:
        """A base as a package names it; what is on this machine is copied into the workspace."""
        text = for_platform(text, platform)
        base = self.open(text, platform)
        if is_local(text):
            self.store.adopt(base)
        return BaseImage(name=base.name, digest=base.digest)

    def _kept(self, digest: str, platform: str) -> Base:
        found = self.store.find(digest, platform, f"sha256:{digests.parse(digest)[:12]}")
        if found is None:
            raise NotFoundError(
                f"The package's base {digest} came from a file, and is not in this workspace.",
                hint="Name it again: '--base rootfs:FILE' or '--base oci:FOLDER'.",
            )
        return found

    def _default(self, python: str, platform: str) -> Base:
        """Python's own image, at the digest that it had when it was used first."""
        name = f"docker.io/library/python:{python}-slim"
        pins = self._read_pins()
        pinned = pins.get(f"{name} {platform}", "")
        base = self.open(f"{name}@{pinned}" if pinned else name, platform)
        if not pinned:
            pins[f"{name} {platform}"] = base.digest
            content = msgspec.json.encode(pins, order="sorted")
            durable.write_bytes(self._pins, msgspec.json.format(content, indent=2) + b"\n")
        return base

    def _read_pins(self) -> dict[str, str]:
        try:
            return msgspec.json.decode(self._pins.read_bytes(), type=dict[str, str])
        except FileNotFoundError:
            return {}
        except (OSError, msgspec.DecodeError, msgspec.ValidationError) as error:
            raise WorkspaceError(
                f"{self._pins} cannot be read: {error}.",
                hint="It says which base images this workspace uses; restore it, or remove it to "
                "choose them anew.",
            ) from error

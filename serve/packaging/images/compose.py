"""Puts a package on a base: a pure function of the package's and the base's digests.

Nothing is copied: an image is two documents that name layers which are where they were, those of
the base and those of the package.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, BinaryIO

import msgspec

from scoring import digest as digests
from scoring.errors import NotFoundError, PackagingError
from scoring.packages.documents import (
    CONFIG_TYPE,
    MANIFEST_TYPE,
    PACKAGE,
    PREFIX,
    Descriptor,
    ImageConfig,
    Manifest,
    Platform,
    canonical_json,
)
from scoring.packages.reading import read_package
from serve.packaging.images import facts
from serve.packaging.images.documents import RunConfig

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from scoring.packages.storage import Blobs
    from serve.packaging.images.bases import Base

_EPOCH = "1970-01-01T00:00:00Z"
_BASE_NAME = "org.opencontainers.image.base.name"
_BASE_DIGEST = "org.opencontainers.image.base.digest"


@dataclass(frozen=True)
class Image:
    """A package on a base.

    Attributes:
        digest: Of the manifest: the image's name.
        manifest: As JSON.
        config: The image configuration, as JSON.
        layers: The base's, then the package's.
        diff_ids: The digests of the uncompressed layers.
        platform: `linux/amd64`.
        package: The package's own manifest.
        package_config: The package's own configuration.
        annotations: The manifest's.
        base: What it stands on.
    """

    digest: str
    manifest: bytes = field(repr=False)
    config: bytes = field(repr=False)
    layers: tuple[Descriptor, ...]
    diff_ids: tuple[str, ...]
    platform: str
    package: Descriptor
    package_config: Descriptor
    annotations: dict[str, str]
    base: Base
    blobs: Blobs = field(repr=False)

    @property
    def root(self) -> Descriptor:
        """The manifest's descriptor."""
        architecture = self.platform.partition("/")[2]
        return Descriptor(
            media_type=MANIFEST_TYPE,
            digest=self.digest,
            size=len(self.manifest),
            platform=Platform(architecture=architecture, os="linux"),
        )

    @property
    def config_descriptor(self) -> Descriptor:
        """The configuration's descriptor; its digest is the image's ID in an engine."""
        return Descriptor(
            media_type=CONFIG_TYPE, digest=digests.of_bytes(self.config), size=len(self.config)
        )

    @property
    def size(self) -> int:
        """Of manifest, configuration and layers together, compressed."""
        return len(self.manifest) + len(self.config) + sum(layer.size for layer in self.layers)

    def descriptors(self) -> Iterator[Descriptor]:
        """All that belongs to the image, what is named before what names it."""
        yield from self.layers
        yield self.config_descriptor
        yield self.root

    def companions(self) -> Iterator[Descriptor]:
        """The package's own documents, which name the same layers: a pull wants them back."""
        yield self.package_config
        yield self.package

    def open(self, descriptor: Descriptor) -> BinaryIO:
        """The bytes of a layer or document; those of a base may be fetched first.

        Raises:
            NotFoundError: It belongs to something else, or is gone.
        """
        digest = descriptor.digest
        for content in (self.manifest, self.config):
            if digest == digests.of_bytes(content):
                return io.BytesIO(content)
        if any(digest == layer.digest for layer in self.base.layers):
            return self.base.open(descriptor)
        if not self.blobs.has(digest):
            raise NotFoundError(
                f"The blob {digest} is not in the store.", hint="Build the package again."
            )
        return self.blobs.path(digest).open("rb")

    def origins(self, digest: str) -> Sequence[object]:
        """The repositories that are known to hold a layer."""
        return self.base.origins(digest)


def compose(package_digest: str, base: Base, blobs: Blobs) -> Image:
    """Puts a package on a base.

    Args:
        package_digest: Of the package's manifest, in the store.
        base: For the package's platform.
        blobs: The store.

    Raises:
        NotFoundError: The package is not in the store.
        DigestMismatchError: One of its documents is damaged.
        PackagingError: The base is for another platform.
        IncompatibleEnvironmentError: The base lacks the package's Python version.
    """
    package = read_package(package_digest, blobs)
    manifest = blobs.path(package_digest).read_bytes()
    own = msgspec.json.decode(manifest, type=Manifest)
    _require_suitable(package.platform, own.annotations, base)
    annotations = _annotations(own.annotations, package_digest, base)
    raw = blobs.path(package.config.digest).read_bytes()
    config = canonical_json(_config(msgspec.json.decode(raw), base, annotations))
    layers = (*base.layers, *own.layers)
    document = canonical_json(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": {
                "mediaType": CONFIG_TYPE,
                "digest": digests.of_bytes(config),
                "size": len(config),
            },
            "layers": layers,
            "annotations": annotations,
        }
    )
    return Image(
        digest=digests.of_bytes(document),
        manifest=document,
        config=config,
        layers=layers,
        diff_ids=msgspec.json.decode(config, type=ImageConfig).rootfs.diff_ids,
        platform=package.platform,
        package=Descriptor(media_type=MANIFEST_TYPE, digest=package_digest, size=len(manifest)),
        package_config=own.config,
        annotations=annotations,
        base=base,
        blobs=blobs,
    )


def _require_suitable(platform: str, annotations: dict[str, str], base: Base) -> None:
    if base.platform != platform:
        raise PackagingError(
            f"The base {base.label} is for {base.platform}, and the package for {platform}."
        )
    python = annotations.get(PREFIX + "python", "")
    if base.facts is not None and python:
        what = f"The base {base.label}"
        facts.require_suitable(base.facts, platform=platform, python=python, what=what)


def _annotations(own: dict[str, str], package: str, base: Base) -> dict[str, str]:
    kept = {key: value for key, value in own.items() if key not in (_BASE_NAME, _BASE_DIGEST)}
    named = {_BASE_NAME: base.name} if base.name else {}
    return {**kept, PACKAGE: package, _BASE_DIGEST: base.digest, **named}


def _config(package: dict[str, Any], base: Base, labels: dict[str, str]) -> dict[str, Any]:
    """The package's configuration with the base's environment, labels, layers and history."""
    below = base.config
    rootfs = {
        "type": "layers",
        "diff_ids": [*below.rootfs.diff_ids, *package["rootfs"]["diff_ids"]],
    }
    return {
        **package,
        "created": _EPOCH,
        "config": _run_config(package["config"], below.config or RunConfig(), labels),
        "rootfs": rootfs,
        "history": [*_history(base), *package["history"]],
    }


def _run_config(
    package: dict[str, Any], below: RunConfig, labels: dict[str, str]
) -> dict[str, Any]:
    """How a container runs: as the package says, in the environment of the base."""
    return {
        **package,
        "Env": _environment(below.env or (), package.get("Env") or ()),
        "Labels": {**(below.labels or {}), **labels},
    }


def _environment(below: Sequence[str], own: Sequence[str]) -> list[str]:
    """Ours over the base's, but for `PATH`: the base knows where its Python is."""
    merged = dict(item.partition("=")[::2] for item in below)
    for name, _, value in (item.partition("=") for item in own):
        if name != "PATH" or not merged.get(name):
            merged[name] = value
    return [f"{name}={merged[name]}" for name in sorted(merged)]


def _history(base: Base) -> list[dict[str, Any]]:
    """Where the base's layers came from; engines want as many entries as there are layers."""
    told = list(base.config.history or ())
    if sum(not entry.get("empty_layer") for entry in told) == len(base.layers):
        return told
    return [{"created": _EPOCH, "created_by": "the base image"} for _ in base.layers]

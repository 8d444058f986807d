"""The JSON documents of an OCI image, with bytes that depend on their content alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import msgspec

from scoring.bundle import IMAGE_ROOT
from serve.distribution.content import Descriptor as Descriptor  # noqa: PLC0414 - packaging names it, too
from serve.distribution.content import Platform as Platform  # noqa: PLC0414 - packaging names it, too

if TYPE_CHECKING:
    from serve.packaging.layers import Layer
    from serve.packaging.plan import BuildPlan
    from serve.packaging.storage import StoredBlob

MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar+gzip"
INDEX_TYPE = "application/vnd.oci.image.index.v1+json"

PREFIX = "dev.fieldpost."
LAYER_NAME = PREFIX + "layer"
PACKAGE = PREFIX + "package"
UNPACKED_SIZE = PREFIX + "unpacked-size"

LayerName = Literal["env", "runtime", "code", "model"]
LAYER_ORDER: tuple[LayerName, ...] = ("env", "runtime", "code", "model")

PORT = 5001
USER = 65532
_SECOND = 1_000_000_000  # engines count in nanoseconds
_EPOCH = "1970-01-01T00:00:00Z"
_ROOT = f"/{IMAGE_ROOT}"


class Manifest(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    """An OCI image manifest."""

    config: Descriptor
    layers: tuple[Descriptor, ...]
    annotations: dict[str, str] = {}
    media_type: str = ""
    schema_version: int = 0


class Index(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    """An OCI image index: one entry for each platform."""

    manifests: tuple[Descriptor, ...]
    annotations: dict[str, str] = {}
    media_type: str = ""
    schema_version: int = 0


class RootFs(msgspec.Struct, frozen=True):
    """The digests of the uncompressed layers."""

    type: str
    diff_ids: tuple[str, ...]


class ImageConfig(msgspec.Struct, frozen=True):
    """What Fieldpost reads of an OCI image configuration."""

    architecture: str
    os: str
    rootfs: RootFs


def canonical_json(document: object) -> bytes:
    """Sorted keys and no spaces: the same bytes for the same document."""
    return msgspec.json.encode(document, order="sorted")


def image_config(plan: BuildPlan, layers: dict[LayerName, Layer]) -> bytes:
    """The image configuration: how the container runs, and its layers' uncompressed digests."""
    return canonical_json(
        {
            "architecture": plan.lock.target.architecture,
            "os": "linux",
            "created": _EPOCH,
            "config": _run_config(plan),
            "rootfs": {"type": "layers", "diff_ids": [x.diff_id for x in layers.values()]},
            "history": [
                {"created": _EPOCH, "created_by": f"fieldpost: the {name} layer"} for name in layers
            ],
        }
    )


def _run_config(plan: BuildPlan) -> dict[str, object]:
    scoring = f"{_ROOT}/runtime/scoring"
    python = f"python{plan.lock.target.python}"  # a base may have several
    return {
        "Entrypoint": [python, "-I", "-S", "-X", "utf8", f"{scoring}/boot.py", _ROOT],
        "Env": [
            "FIELDPOST_SERVER_HOST=0.0.0.0",
            f"FIELDPOST_SERVER_PORT={PORT}",
            "LANG=C.UTF-8",
            "PATH=/usr/local/bin:/usr/local/sbin:/usr/bin:/usr/sbin:/bin:/sbin",
        ],
        "ExposedPorts": {f"{PORT}/tcp": {}},
        "Healthcheck": {
            "Test": ["CMD", python, "-I", "-S", f"{scoring}/probe.py"],
            "Interval": 10 * _SECOND,
            "Timeout": 5 * _SECOND,
            "StartPeriod": 60 * _SECOND,
            "Retries": 3,
        },
        "Labels": package_annotations(plan),
        "StopSignal": "SIGTERM",
        "User": f"{USER}:{USER}",
        "WorkingDir": _ROOT,
    }


def package_annotations(plan: BuildPlan) -> dict[str, str]:
    """What the package is, for whoever lists images."""
    values = {
        "org.opencontainers.image.title": plan.bundle.name,
        "org.opencontainers.image.version": _version_text(plan),
        "org.opencontainers.image.base.name": plan.base.name if plan.base else "",
        "org.opencontainers.image.base.digest": plan.base.digest if plan.base else "",
        PREFIX + "model.name": plan.bundle.name,
        PREFIX + "model.version": _version_text(plan),
        PREFIX + "model.digest": plan.model_digest,
        PREFIX + "environment.hash": plan.lock.hash,
        PREFIX + "python": plan.lock.target.python,
        PREFIX + "version": plan.fieldpost_version,
    }
    return {key: value for key, value in values.items() if value}


def _version_text(plan: BuildPlan) -> str:
    return str(plan.bundle.model_version) if plan.bundle.model_version else ""


def image_manifest(plan: BuildPlan, config: StoredBlob, layers: dict[LayerName, Layer]) -> bytes:
    """The manifest, whose digest names the package."""
    return canonical_json(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": {"mediaType": CONFIG_TYPE, "digest": config.digest, "size": config.size},
            "layers": [_layer_descriptor(name, layer) for name, layer in layers.items()],
            "annotations": package_annotations(plan),
        }
    )


def _layer_descriptor(name: str, layer: Layer) -> dict[str, object]:
    return {
        "mediaType": LAYER_TYPE,
        "digest": layer.digest,
        "size": layer.size,
        "annotations": {LAYER_NAME: name, UNPACKED_SIZE: str(layer.unpacked_size)},
    }

"""Writes the JSON documents of an OCI image, with bytes that depend on their content alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scoring.bundle import IMAGE_ROOT
from scoring.packages.documents import (
    CONFIG_TYPE,
    LAYER_NAME,
    LAYER_TYPE,
    MANIFEST_TYPE,
    PREFIX,
    UNPACKED_SIZE,
    canonical_json,
)

if TYPE_CHECKING:
    from scoring.packages.documents import LayerName
    from scoring.packages.storage import StoredBlob
    from serve.packaging.layers import Layer
    from serve.packaging.plan import BuildPlan

PORT = 5001
USER = 65532
_SECOND = 1_000_000_000  # engines count in nanoseconds
_EPOCH = "1970-01-01T00:00:00Z"
_ROOT = f"/{IMAGE_ROOT}"
ENVIRONMENT = (
    "FIELDPOST_SERVER_HOST=0.0.0.0",
    f"FIELDPOST_SERVER_PORT={PORT}",
    "LANG=C.UTF-8",
    "PATH=/usr/local/bin:/usr/local/sbin:/usr/bin:/usr/sbin:/bin:/sbin",
)


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
        "Env": ENVIRONMENT,
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

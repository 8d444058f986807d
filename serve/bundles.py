"""How registered versions are described where they are served. Light: every build imports it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from scoring.bundle import Bundle

if TYPE_CHECKING:
    from serve.registry.records import ModelVersion

MODELS = "azureml-models"
"""The folder of registered files, below `model/`."""


def registered_bundle(version: ModelVersion, model_path: str) -> Bundle:
    """The description of a registered version that is served without a script."""
    return msgspec.convert(
        {
            "name": version.name,
            "model_version": version.version,
            "runtime": version.runtime,
            "format": version.format,
            "model_path": model_path,
            "schema": msgspec.to_builtins(version.schema),
            "trusted_types": version.trusted_types,
            "pickle_trusted": version.pickle_trusted,
        },
        Bundle,
    )

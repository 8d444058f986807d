"""Packages of a real workspace as the blobs that a device fetches."""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING

from scoring.packages.reading import read_package
from tests.support.blob_source import Made, MadeLayer

if TYPE_CHECKING:
    from pathlib import Path

    from serve import Workspace

IRIS_ROW = {"data": [[5.1, 3.5, 1.4, 0.2]]}
"""Of the first class: the package of `iris` answers 0."""


def iris(folder: Path) -> Made:
    """A forest that was compiled to ONNX, with the environment that it needs."""
    from sklearn.datasets import load_iris
    from sklearn.ensemble import RandomForestClassifier

    from serve import Workspace

    rows, labels = load_iris(return_X_y=True)
    fitted = RandomForestClassifier(10, random_state=0).fit(rows, labels)
    with Workspace(folder / "workspace") as workspace:
        version = workspace.models.register("iris", fitted, sample=rows[:5])
        assert version.serves == "compiled"
        return made_of(workspace, workspace.packages.build(version).digest)


def made_of(workspace: Workspace, digest: str) -> Made:
    """Everything of a package."""
    blobs = workspace.registry.blobs
    package = read_package(digest, blobs)
    content = {each: blobs.path(each).read_bytes() for each in package.blobs}
    layers = tuple(
        MadeLayer(layer.name, gzip.decompress(content[layer.digest]), content[layer.digest])
        for layer in package.layers
    )
    return Made(digest, content, layers)

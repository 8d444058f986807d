"""Packages of a real workspace as the blobs that a device fetches."""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING

from scoring.packages.reading import read_package
from tests.support.blob_source import Made, MadeLayer

if TYPE_CHECKING:
    from serve import Workspace


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

"""Finds layers that were built before by what they were built from."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import msgspec

from scoring import digest, durable
from scoring.errors import NotFoundError
from serve.packaging.layers import Layer

if TYPE_CHECKING:
    from pathlib import Path

    from scoring.packages.storage import Blobs


class LayerCache:
    """A folder of small records, `KEY.json`, one for each layer.

    A record is trusted only while its blob is in the store with the recorded size, so that
    removing either costs time and nothing else.

    Attributes:
        folder: The folder; made at the first write.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def find(self, key: str, blobs: Blobs) -> Layer | None:
        """The layer built for a key, if its blob is still there."""
        try:
            layer = msgspec.json.decode(self._path(key).read_bytes(), type=Layer)
        except (OSError, msgspec.DecodeError, msgspec.ValidationError):
            return None
        return layer if _is_stored(layer, blobs) else None

    def record(self, key: str, layer: Layer) -> None:
        """Remembers a layer.

        Raises:
            StorageFullError: The disk is full.
            WorkspaceError: The record cannot be written.
        """
        durable.write_cache(self._path(key), msgspec.json.encode(layer, order="sorted"))

    def _path(self, key: str) -> Path:
        return self.folder / f"{digest.parse(key)}.json"


def _is_stored(layer: Layer, blobs: Blobs) -> bool:
    with contextlib.suppress(OSError, NotFoundError):
        return blobs.has(layer.digest) and blobs.path(layer.digest).stat().st_size == layer.size
    return False

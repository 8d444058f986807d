"""What was found in a layer, kept in the workspace's cache by the layer's digest.

A build knows it before the layer is written, and keeps it: nobody has to decompress what was
compressed a moment ago. Light, as every build imports it.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, TypeVar

import msgspec

from scoring import digest as digests
from scoring import durable
from scoring.bundle import Bundle

if TYPE_CHECKING:
    from pathlib import Path

# Of what is kept: raise it when more is read.
FORMAT = 1


class Distribution(msgspec.Struct, frozen=True, order=True):
    """What an installed distribution says of itself; see `Component`."""

    name: str
    version: str
    licence: str = ""
    licence_text: str = ""


class ModelFile(msgspec.Struct, frozen=True, order=True):
    """A file of the model layer: its path below `model/`, its digest and its size."""

    path: str
    digest: str
    size: int


class EnvironmentFacts(msgspec.Struct, frozen=True):
    """Of an environment layer.

    Attributes:
        lock: The lock's text.
        distributions: What is installed, sorted.
    """

    lock: str
    distributions: tuple[Distribution, ...]


class ModelFacts(msgspec.Struct, frozen=True):
    """Of a model layer.

    Attributes:
        bundle: The package's description.
        files: Those of the model, sorted.
    """

    bundle: Bundle
    files: tuple[ModelFile, ...]


Facts = TypeVar("Facts", EnvironmentFacts, ModelFacts)


def folder(workspace: Path) -> Path:
    """Where a workspace keeps them."""
    return workspace / "cache" / "inventories"


def find(cache: Path, layer: str, kind: type[Facts]) -> Facts | None:
    """What was found in a layer before; None for a layer that nobody looked into.

    Args:
        cache: The folder.
        layer: The layer's digest.
        kind: What it is looked at as.
    """
    with contextlib.suppress(OSError, msgspec.DecodeError, msgspec.ValidationError):
        return msgspec.json.decode(_path(cache, layer).read_bytes(), type=kind)
    return None


def keep(cache: Path, layer: str, facts: EnvironmentFacts | ModelFacts) -> None:
    """Remembers what is in a layer.

    Raises:
        StorageFullError: The disk is full.
        WorkspaceError: The cache cannot be written.
    """
    durable.write_cache(_path(cache, layer), msgspec.json.encode(facts, order="sorted"))


def _path(cache: Path, layer: str) -> Path:
    return cache / f"{FORMAT}-{digests.parse(layer)}.json"

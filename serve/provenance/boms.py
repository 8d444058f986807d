"""Which manifest an SBOM is about, as far as it says so: anybody's, not only ours. No I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from serve.provenance.artifacts import SPDX_TYPE

if TYPE_CHECKING:
    from collections.abc import Iterable

_MADE_OF = ("APPLICATION", "CONTAINER")  # what has a layer, or is a base


class Named(msgspec.Struct, frozen=True):
    """The digests in an SBOM that name parts of images, in hexadecimal.

    Attributes:
        root: Of what the document is about.
        parts: Of the applications and containers in it; libraries and files have no layers.
    """

    root: frozenset[object]
    parts: frozenset[object]


def about(artifact_type: str, document: dict[str, Any]) -> Named:
    """What an SBOM names; nothing where it has not the form of one.

    Args:
        artifact_type: `artifacts.SPDX_TYPE`, or CycloneDX.
        document: Its JSON.
    """
    if artifact_type == SPDX_TYPE:
        entries = _entries(document.get("packages"))
        purpose, hashes, value = "primaryPackagePurpose", "checksums", "checksumValue"
        root = entries[:1]
    else:
        metadata = document.get("metadata")
        root = _entries([metadata.get("component")] if isinstance(metadata, dict) else [])
        entries = _entries(document.get("components"))
        purpose, hashes, value = "type", "hashes", "content"
    parts = (each for each in entries if str(each.get(purpose)).upper() in _MADE_OF)
    return Named(_digests(root, hashes, value), _digests(parts, hashes, value))


def _entries(found: object) -> list[dict[str, Any]]:
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []


def _digests(entries: Iterable[dict[str, Any]], hashes: str, value: str) -> frozenset[object]:
    return frozenset(
        str(each.get(value)) for entry in entries for each in _entries(entry.get(hashes))
    )

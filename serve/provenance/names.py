"""Names that the documents about packages share, and how reading them fails."""

from __future__ import annotations

from urllib.parse import quote

import msgspec

DECODE_ERRORS = (msgspec.DecodeError, ValueError, RecursionError)
"""What decoding hostile JSON raises: bytes that are no UTF-8 and depth without end included."""


def oci_purl(name: str, digest: str) -> str:
    """`pkg:oci/NAME@sha256%3A…`: the last part of the name, in lower case."""
    return f"pkg:oci/{quote(name.rpartition('/')[2].lower(), safe='')}@{quote(digest, safe='')}"


def pypi_purl(name: str, version: str, url: str = "") -> str:
    """`pkg:pypi/NAME@VERSION`, with the URL of a wheel that came from no index."""
    at = f"@{quote(version, safe='')}" if version else ""
    origin = f"?download_url={quote(url, safe='')}" if url else ""
    return f"pkg:pypi/{name}{at}{origin}"


def hexadecimal(digest: str) -> str:
    """The digest without `sha256:`."""
    return digest.partition(":")[2]

"""Digests: `sha256:` and 64 hexadecimal digits.

A digest that comes from outside is parsed before any path is made of it.
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, BinaryIO

from scoring.errors import InvalidNameError

if TYPE_CHECKING:
    from collections.abc import Iterable

ALGORITHM = "sha256"
CHUNK_BYTES = 1 << 20

_SHOWN = 100
_FORM = re.compile(r"sha256:[0-9a-f]{64}", re.ASCII)


def is_digest(text: str) -> bool:
    """Whether the text has the form of a digest."""
    return _FORM.fullmatch(text) is not None


def parse(text: str) -> str:
    """The hexadecimal part of a digest.

    Raises:
        InvalidNameError: The text is not `sha256:` and 64 lower-case hexadecimal digits.
    """
    if not is_digest(text):
        raise InvalidNameError(
            f"{text[:_SHOWN]!a} is not a digest.",
            hint="A digest is 'sha256:' followed by 64 hexadecimal digits in lower case.",
        )
    return text.removeprefix(f"{ALGORITHM}:")


def from_hex(hexadecimal: str) -> str:
    """The digest with this hexadecimal part; raises `InvalidNameError` like `parse`."""
    digest = f"{ALGORITHM}:{hexadecimal}"
    parse(digest)
    return digest


def of_bytes(data: bytes | bytearray | memoryview) -> str:
    """The digest of bytes in memory."""
    return f"{ALGORITHM}:{hashlib.sha256(data).hexdigest()}"


def of_chunks(chunks: Iterable[bytes]) -> str:
    """The digest of the chunks, one after another."""
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
    return f"{ALGORITHM}:{digest.hexdigest()}"


def of_stream(stream: BinaryIO) -> str:
    """The digest of what is left to read in a binary stream."""
    return of_chunks(iter(lambda: stream.read(CHUNK_BYTES), b""))

"""What packaging needs of a blob store: the part of the registry's store that it uses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


class StoredBlob(Protocol):
    """A blob as the store names it."""

    @property
    def digest(self) -> str:
        """`sha256:` and 64 hexadecimal digits."""
        ...

    @property
    def size(self) -> int:
        """In bytes."""
        ...


class Blobs(Protocol):
    """A content-addressed store. Every write is atomic: a blob is there whole or not at all."""

    def put_bytes(self, data: bytes) -> StoredBlob:
        """Stores a small blob."""
        ...

    def put_stream(self, chunks: Iterable[bytes]) -> StoredBlob:
        """Stores a blob of any size."""
        ...

    def has(self, digest: str) -> bool:
        """Whether the blob is there."""
        ...

    def path(self, digest: str) -> Path:
        """The file that holds the blob; raises `NotFoundError` for none."""
        ...

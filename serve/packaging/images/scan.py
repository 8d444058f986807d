"""Looks into the layers of a base that is at hand: its Python versions, its C library."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scoring.archive import Limits
from scoring.errors import UnsafeArchiveError
from scoring.tarheaders import TarHeader, TarReader, read_header
from serve.packaging.images import facts
from serve.packaging.images.facts import Facts
from serve.packaging.images.rootfs import DAMAGED, KINDS, decompressed, normal
from serve.packaging.images.streams import BUFFER_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

    from serve.packaging.images.bases import Base

_WHITEOUT = ".wh."


def scan_layers(base: Base) -> Facts:
    """Reads every layer once.

    Raises:
        DigestMismatchError: A layer is damaged.
        UnsafeArchiveError: A layer is no archive.
    """
    telling: set[str] = set()
    platform = ""
    for number, layer in enumerate(base.layers, 1):
        what = f"Layer {number} of the base {base.label}"
        with base.open(layer) as source:
            try:
                for header, head in _entries(source, what):
                    path = normal(header.name)
                    _apply(path, telling)
                    if not platform and "bin/" in path:
                        platform = facts.elf_platform(head)
            finally:  # damage is the better explanation of whatever is wrong with the content
                while source.read(BUFFER_BYTES):  # to the end, where its digest is compared
                    pass
    return facts.from_names(telling, platform)


def _apply(path: str, telling: set[str]) -> None:
    """A layer adds files, and takes away with whiteouts what is below it."""
    folder, _, name = path.rpartition("/")
    if name.startswith(_WHITEOUT):
        gone = f"{folder}/{name.removeprefix(_WHITEOUT)}".lstrip("/")
        telling.difference_update({p for p in telling if p == gone or p.startswith(f"{gone}/")})
    elif facts.is_telling(path):
        telling.add(path)


def _entries(source: BinaryIO, what: str) -> Iterator[tuple[TarHeader, bytes]]:
    """The heads of a layer's entries, each with the first bytes of its content."""
    stream = decompressed(source, what)
    reader = TarReader(stream.read)
    limits = Limits()
    try:
        while header := read_header(reader, limits.max_bytes, kinds=KINDS):
            head = b""

            def keep(piece: bytes) -> None:
                nonlocal head
                head = head or piece[: facts.ELF_HEAD]

            reader.copy(header.size, keep)
            yield header, head
    except DAMAGED as error:
        raise UnsafeArchiveError(f"{what} is damaged or cut off: {error}.") from error
    except UnsafeArchiveError as error:
        raise UnsafeArchiveError(f"{what}: {error.message}") from error

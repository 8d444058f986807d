"""Random access to the files of an uncompressed archive: of OCI and Docker image archives."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, BinaryIO

from scoring.archive import safe_parts
from scoring.errors import NotFoundError, PackagingError, UnsafeArchiveError
from scoring.tarheaders import BLOCK, TarHeader, TarReader, read_header
from serve.packaging.images.streams import BUFFER_BYTES

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

_KINDS = "0123456"  # devices lie in no image, and are not looked at
_MAX_ENTRIES = 100_000
_MAX_BYTES = 1 << 40
_MAX_LINKS = 8
_COMPRESSED = (b"\x1f\x8b", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd", b"BZh")


class TarIndex:
    """Where the files of an archive are.

    Args:
        path: The archive.

    Raises:
        NotFoundError: There is no such file.
        UnsafeArchiveError: It is damaged, cut off, or holds what no image archive has.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._files: dict[str, tuple[int, int]] = {}
        self._links: dict[str, str] = {}
        try:
            with path.open("rb") as file:
                self._read(file)
        except (FileNotFoundError, IsADirectoryError) as error:
            raise NotFoundError(f"There is no archive {str(path)!r}.") from error
        except UnsafeArchiveError as error:
            raise UnsafeArchiveError(f"{path}: {error.message}", hint=error.hint) from error

    @property
    def names(self) -> frozenset[str]:
        """Of all files and links."""
        return frozenset(self._files) | frozenset(self._links)

    def size(self, name: str) -> int:
        """Of a file's content."""
        return self._place(name)[1]

    def open(self, name: str) -> BinaryIO:
        """A file's content.

        Raises:
            PackagingError: There is none of that name.
        """
        offset, size = self._place(name)
        return io.BufferedReader(_Part(self.path.open("rb"), offset, size), BUFFER_BYTES)

    def _read(self, file: BinaryIO) -> None:
        if file.read(6).startswith(_COMPRESSED):
            raise UnsafeArchiveError(
                "The archive is compressed.", hint="Unpack it first: 'gunzip', 'unxz', 'unzstd'."
            )
        size = file.seek(0, 2)
        file.seek(0)
        reader = TarReader(file.read)
        while header := read_header(reader, _MAX_BYTES, kinds=_KINDS):
            self._add(header, file.tell())
            end = file.seek(header.size + (-header.size % BLOCK), 1)
            if end > size:
                raise UnsafeArchiveError("The archive is cut off.")

    def _add(self, header: TarHeader, offset: int) -> None:
        name = "/".join(safe_parts(header.name))
        if name in self._files or name in self._links:
            raise UnsafeArchiveError(f"The archive holds {name!r} twice.")
        if len(self._files) + len(self._links) >= _MAX_ENTRIES:
            raise UnsafeArchiveError(f"The archive holds over {_MAX_ENTRIES} files.")
        if header.kind == "0":
            self._files[name] = offset, header.size
        elif header.kind in "12":
            self._links[name] = _target(name, header)

    def _place(self, name: str) -> tuple[int, int]:
        wanted = name
        for _ in range(_MAX_LINKS):
            if name in self._files:
                return self._files[name]
            if name not in self._links:
                break
            name = self._links[name]
        raise PackagingError(f"{self.path} has no file {wanted[:200]!r}.")


def _target(name: str, header: TarHeader) -> str:
    """Docker names a layer that comes twice by a link: `../HEX/layer.tar`; empty for outside."""
    parts = name.split("/")[:-1] if header.kind == "2" else []
    for part in header.link.split("/"):
        if part == ".." and parts:
            parts.pop()
        elif part in ("", ".."):
            return ""
        elif part != ".":
            parts.append(part)
    return "/".join(parts)


class _Part(io.RawIOBase):
    def __init__(self, file: BinaryIO, offset: int, size: int) -> None:
        self._file = file
        self._left = size
        file.seek(offset)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._file.read(min(len(buffer), self._left))
        self._left -= len(data)
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()

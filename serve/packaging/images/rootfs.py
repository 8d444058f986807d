"""Root filesystem archives as layers: looked through and passed on, never unpacked here.

A root filesystem has what a package may not have: links, special modes, extended attributes. They
pass. Refused is what no system has and what engines treat differently: names or links that lead
out, names that come twice, files below a link, devices outside of `dev` (those in it are left out:
engines mount their own, and one without privileges cannot make them).
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import zlib
from typing import TYPE_CHECKING, BinaryIO, Protocol, cast

from scoring.archive import Limits
from scoring.errors import PackagingError, UnsafeArchiveError
from scoring.tarheaders import BLOCK, PIECE_BYTES, TarHeader, TarReader, read_header
from serve.packaging.images import facts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from io import BufferedReader

KINDS = "0123456"
_FOLDER = "5"
_DEVICES = "346"
_RATIO_FLOOR_BYTES = 64 << 20
_MAGIC_BYTES = 6
DAMAGED = (OSError, EOFError, zlib.error, lzma.LZMAError)


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


class RootArchive:
    """An archive on its way through.

    Args:
        source: The archive, plain or compressed with gzip, xz, bzip2 or Zstandard.
        what: For messages.
        limits: What it may cost.

    Attributes:
        facts: What was in it, when `pieces` has come to its end.
    """

    def __init__(self, source: BinaryIO, what: str, limits: Limits | None = None) -> None:
        self.facts = facts.Facts()
        self._what = what
        self._limits = limits or Limits()
        self._names = _Names(what, self._limits.max_entries)
        self._input = _Input(source, what, self._limits)
        self._telling: list[str] = []
        self._platform = ""

    def pieces(self) -> Iterator[bytes]:
        """The uncompressed archive, the same for whatever it was compressed with.

        Raises:
            UnsafeArchiveError: It is damaged, cut off, too large, or holds what it must not.
        """
        reader = TarReader(self._input.read)
        while header := self._next(reader):
            head = self._input.take()
            kept = self._names.add(header)
            if kept:
                yield head
            for piece in self._content(header):
                if kept:
                    yield piece
        self._input.finish()
        yield bytes(2 * BLOCK)
        self.facts = facts.from_names(self._telling, self._platform)

    def _next(self, reader: TarReader) -> TarHeader | None:
        try:
            return read_header(reader, self._limits.max_bytes, kinds=KINDS)
        except UnsafeArchiveError as error:
            raise UnsafeArchiveError(f"{self._what}: {error.message}", hint=error.hint) from error

    def _content(self, header: TarHeader) -> Iterator[bytes]:
        path = normal(header.name)
        if facts.is_telling(path):
            self._telling.append(path)
        left, first = header.size + (-header.size % BLOCK), True
        while left:
            piece = self._input.content(min(left, PIECE_BYTES))
            if not piece:
                raise UnsafeArchiveError(f"{self._what} is cut off in {path!r}.")
            if first and not self._platform and "bin/" in path:
                self._platform = facts.elf_platform(piece[: facts.ELF_HEAD])
            first = False
            left -= len(piece)
            yield piece


class _Input:
    """The decompressed stream, bounded."""

    def __init__(self, source: BinaryIO, what: str, limits: Limits) -> None:
        self._source = source
        self._what = what
        self._limits = limits
        self._stream = decompressed(source, what)
        self._taken: list[bytes] = []
        self._out = 0

    def read(self, size: int) -> bytes:
        """A part of a head, which `take` gives again."""
        data = self.content(size)
        self._taken.append(data)
        return data

    def take(self) -> bytes:
        """What was read as heads since the last call."""
        data, self._taken = b"".join(self._taken), []
        return data

    def content(self, size: int) -> bytes:
        """At most so many bytes of content; none at the end."""
        try:
            data = self._stream.read(size)
        except DAMAGED as error:
            raise UnsafeArchiveError(f"{self._what} is damaged or cut off: {error}.") from error
        self._out += len(data)
        require_bounded(self._out, self._source.tell(), self._what, self._limits)
        return data

    def finish(self) -> None:
        """Reads to the end, where compressed streams have their checksums."""
        while piece := self.content(PIECE_BYTES):
            if piece.strip(b"\0"):
                raise UnsafeArchiveError(f"{self._what} holds data after its end.")


def require_bounded(out: int, read: int, what: str, limits: Limits) -> None:
    """Raises `UnsafeArchiveError` where so many bytes came of so few, or more than may come."""
    if out > limits.max_bytes:
        raise UnsafeArchiveError(f"{what} unpacks to over {limits.max_bytes} bytes.")
    if out > _RATIO_FLOOR_BYTES and out > limits.max_ratio * read:
        raise UnsafeArchiveError(f"{what} unpacks to over {limits.max_ratio} times its size.")


def decompressed(source: BinaryIO, what: str) -> _Readable:
    """The content of a buffered stream, by the magic number of what it is compressed with.

    Raises:
        PackagingError: A module for its compression is missing.
    """
    magic = cast("BufferedReader", source).peek(_MAGIC_BYTES)[:_MAGIC_BYTES]
    if magic.startswith(b"\x1f\x8b"):
        return gzip.GzipFile(fileobj=source)
    if magic.startswith(b"\xfd7zXZ\0"):
        return lzma.LZMAFile(source)
    if magic.startswith(b"BZh"):
        return bz2.BZ2File(source)
    if magic.startswith(b"\x28\xb5\x2f\xfd"):
        return _zstandard(source, what)
    return source


def _zstandard(source: BinaryIO, what: str) -> _Readable:
    try:
        import zstandard  # noqa: PLC0415 - for these archives only
    except ImportError as error:
        raise PackagingError(
            f"{what} is compressed with Zstandard, and the module zstandard is not installed.",
            hint="Run 'pip install zstandard', or compress the archive with gzip.",
        ) from error
    reader = zstandard.ZstdDecompressor().stream_reader(source, read_across_frames=True)
    return cast("_Readable", _Translated(reader.read, zstandard.ZstdError))


class _Translated:
    """A reader whose own kind of error becomes an `OSError`."""

    def __init__(self, read: Callable[[int], bytes], error: type[Exception]) -> None:
        self._read = read
        self._error = error

    def read(self, size: int) -> bytes:
        try:
            return self._read(size)
        except self._error as error:
            raise OSError(str(error)) from error


class _Names:
    """The names of an archive so far, and whether a further one may be among them."""

    def __init__(self, what: str, max_entries: int) -> None:
        self._what = what
        self._max = max_entries
        self._kinds: dict[str, str] = {}

    def add(self, header: TarHeader) -> bool:
        """Whether the entry is part of the layer.

        Raises:
            UnsafeArchiveError: It must not be in any.
        """
        path = self._path(header.name, "entry")
        if path in self._kinds:
            raise UnsafeArchiveError(f"{self._what} holds {path!r} twice.")
        if len(self._kinds) >= self._max:
            raise UnsafeArchiveError(f"{self._what} holds over {self._max} entries.")
        self._require_real_folders(path)
        self._kinds[path] = header.kind
        if header.kind in _DEVICES:
            return self._drop_device(path)
        if header.kind == "1":
            self._require_known(path, header.link)
        elif header.kind == "2":
            self._require_inside(path, header.link)
        return bool(path)

    def _path(self, name: str, kind: str) -> str:
        parts = name.split("/")
        if name.startswith("/"):
            raise UnsafeArchiveError(f"{self._what}: the {kind} {name[:200]!r} is absolute.")
        if ".." in parts:
            raise UnsafeArchiveError(f"{self._what}: the {kind} {name[:200]!r} leads outside.")
        return normal(name)

    def _require_real_folders(self, path: str) -> None:
        at = path.find("/")
        while at >= 0:
            if self._kinds.get(path[:at], _FOLDER) != _FOLDER:
                raise UnsafeArchiveError(
                    f"{self._what}: {path!r} lies below {path[:at]!r}, which is no folder."
                )
            at = path.find("/", at + 1)

    def _require_known(self, path: str, target: str) -> None:
        """A hard link names a file that came before."""
        if self._kinds.get(self._path(target, "hard link to"), _FOLDER) not in "02":
            raise UnsafeArchiveError(
                f"{self._what}: {path!r} is a hard link to {target[:200]!r}, no file of it."
            )

    def _require_inside(self, path: str, target: str) -> None:
        """A symbolic link may be absolute, which is inside of the container."""
        if target.startswith("/"):
            return
        depth = path.count("/")
        for part in target.split("/"):
            depth += -1 if part == ".." else part not in ("", ".")
            if depth < 0:
                raise UnsafeArchiveError(
                    f"{self._what}: the link {path!r} leads out, to {target[:200]!r}."
                )

    def _drop_device(self, path: str) -> bool:
        if not path.startswith(("dev/", "run/")):
            raise UnsafeArchiveError(
                f"{self._what} holds {path!r}, a device or pipe outside of dev.",
                hint="Leave it out: 'tar --exclude'.",
            )
        return False


def normal(name: str) -> str:
    """A path in an archive without what means nothing: `./usr//bin/` is `usr/bin`."""
    return "/".join(part for part in name.split("/") if part not in ("", "."))

"""Safe unpacking of tar archives, gzip members included, in one bounded pass.

Only what a package needs is accepted: regular files and folders below the target, each name once.
Links, devices, absolute names, `..`, names that differ in letter case only, and archives over
the limits are refused, with `UnsafeArchiveError`; so is anything after the end of the archive. The
reader is strict on purpose: ustar with the pax and GNU records for long names and large sizes.
"""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from scoring import digest as digests
from scoring import durable
from scoring.errors import DigestMismatchError, UnsafeArchiveError
from scoring.tarheaders import PIECE_BYTES, TarHeader, TarReader, read_header

if TYPE_CHECKING:
    from pathlib import Path

_NAME_BYTES = 4096
_PART_BYTES = 255
_DEPTH = 64
_FORBIDDEN = r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\\]"  # compiled where archives are read
_RATIO_FLOOR_BYTES = 64 << 20
_GZIP = 31  # zlib's window bits for "a gzip header and trailer"


@dataclass(frozen=True)
class Limits:
    """What an archive may cost at most.

    Attributes:
        max_entries: Files and folders.
        max_bytes: Size of the uncompressed archive.
        max_ratio: Uncompressed over compressed size, once 64 MiB have come out; 0 for no limit.
    """

    max_entries: int = 500_000
    max_bytes: int = 64 << 30
    max_ratio: int = 200


@dataclass(frozen=True)
class Unpacked:
    """What was unpacked: numbers of files and of their bytes."""

    files: int
    file_bytes: int


def unpack_tar_gz(
    source: BinaryIO,
    target: Path,
    *,
    limits: Limits | None = None,
    digest: str = "",
    diff_id: str = "",
) -> Unpacked:
    """Unpacks a compressed archive into a folder that is empty or not there yet.

    The digests are computed while the content streams; at a mismatch the folder holds what was
    unpacked so far, and the caller throws it away, as after any other error.

    Args:
        source: The gzip stream, of one or more members.
        target: The folder.
        limits: Defaults to `Limits()`.
        digest: Expected digest of the compressed bytes, `sha256:...`; empty for any.
        diff_id: Expected digest of the uncompressed archive; empty for any.

    Raises:
        UnsafeArchiveError: The archive is not one that may be unpacked, or is cut off.
        DigestMismatchError: It is not the one that was asked for.
        StorageFullError: No space is left.
    """
    reader = _GzipReader(source, limits or Limits())
    try:
        result = _unpack(reader, target, limits or Limits())
        reader.finish()
    except UnsafeArchiveError:
        reader.drain()  # damage is the better explanation of whatever is wrong with the content
        _require_digest(digest, reader.compressed.hexdigest())
        raise
    _require_digest(digest, reader.compressed.hexdigest())
    _require_digest(diff_id, reader.uncompressed.hexdigest())
    return result


def name_key(path: str) -> str:
    """Equal for names that some file systems take for the same file."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", path).casefold())


def _require_digest(expected: str, actual: str) -> None:
    if expected and digests.parse(expected) != actual:
        raise DigestMismatchError(
            f"The archive has the digest sha256:{actual}, not {expected}.",
            hint="The file is damaged or was replaced: fetch or build it again.",
        )


class _GzipReader:
    """Reads the content of a gzip stream of any number of members, counting and hashing."""

    def __init__(self, source: BinaryIO, limits: Limits) -> None:
        self.compressed = hashlib.sha256()
        self.uncompressed = hashlib.sha256()
        self._source = source
        self._limits = limits
        self._inflater = zlib.decompressobj(_GZIP)
        self._pending = b""
        self._in = 0
        self._out = 0

    def read(self, size: int) -> bytes:
        """At most `size` bytes; empty at the end of the last member."""
        while True:
            if self._inflater.eof and not self._next_member():
                return b""
            data = self._pending or self._load()
            try:
                piece = self._inflater.decompress(data, size)
            except zlib.error as error:
                raise UnsafeArchiveError(f"The archive is not valid gzip: {error}.") from error
            self._pending = self._inflater.unconsumed_tail
            if piece:
                self._count(piece)
                return piece
            if not data and not self._inflater.eof:
                raise UnsafeArchiveError("The archive is cut off.")

    def finish(self) -> None:
        """Reads to the end; only the zeros that pad an archive may follow its last entry."""
        while piece := self.read(PIECE_BYTES):
            if piece.strip(b"\0"):
                raise UnsafeArchiveError("The archive holds data after its end.")

    def drain(self) -> None:
        """Reads what is left of the compressed bytes, for their digest."""
        while self._load():
            pass

    def _next_member(self) -> bool:
        self._pending = self._inflater.unused_data or self._load()
        if not self._pending:
            return False
        self._inflater = zlib.decompressobj(_GZIP)
        return True

    def _load(self) -> bytes:
        data = self._source.read(PIECE_BYTES)
        self.compressed.update(data)
        self._in += len(data)
        return data

    def _count(self, piece: bytes) -> None:
        self.uncompressed.update(piece)
        self._out += len(piece)
        limits = self._limits
        if self._out > limits.max_bytes:
            raise UnsafeArchiveError(f"The archive unpacks to over {limits.max_bytes} bytes.")
        if limits.max_ratio and self._out > max(_RATIO_FLOOR_BYTES, limits.max_ratio * self._in):
            raise UnsafeArchiveError(
                f"The archive unpacks to over {limits.max_ratio} times its size."
            )


def _unpack(source: _GzipReader, target: Path, limits: Limits) -> Unpacked:
    reader = TarReader(source.read)
    tree = _Tree(target, limits)
    with durable.storage_errors(f"what is unpacked into {target}"):
        target.mkdir(parents=True, exist_ok=True)
        while header := read_header(reader, limits.max_bytes):
            if header.kind == "5":
                tree.add_folder(header.name)
            else:
                tree.add_file(header, reader)
    return Unpacked(files=tree.files, file_bytes=tree.file_bytes)


class _Tree:
    """The names unpacked so far, and the folder that they are in."""

    def __init__(self, target: Path, limits: Limits) -> None:
        self._target = target
        self._limits = limits
        self._names: dict[str, str] = {}
        self._folders: set[str] = set()
        self._listed: set[str] = set()
        self.files = 0
        self.file_bytes = 0

    def add_folder(self, name: str) -> None:
        parts = safe_parts(name)
        path = "/".join(parts)
        if path in self._listed:
            raise UnsafeArchiveError(f"The archive holds {path!r} twice.")
        self._listed.add(path)
        self._make_folders(parts)

    def add_file(self, header: TarHeader, reader: TarReader) -> None:
        parts = safe_parts(header.name)
        if not parts:
            raise UnsafeArchiveError("The archive holds a file without a name.")
        path = "/".join(parts)
        self._make_folders(parts[:-1])
        self._claim(path)
        self.files += 1
        self.file_bytes += header.size
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        mode = 0o755 if header.executable else 0o644
        with os.fdopen(os.open(self._target / path, flags, mode), "wb") as file:
            reader.copy(header.size, file.write)

    def _make_folders(self, parts: list[str]) -> None:
        for depth in range(1, len(parts) + 1):
            path = "/".join(parts[:depth])
            if path not in self._folders:
                self._claim(path)
                self._folders.add(path)
                (self._target / path).mkdir(mode=0o755)

    def _claim(self, path: str) -> None:
        """Takes a name, once, whatever its letter case."""
        if len(self._names) >= self._limits.max_entries:
            raise UnsafeArchiveError(
                f"The archive holds over {self._limits.max_entries} files and folders."
            )
        key = name_key(path)
        other = self._names.get(key)
        if other is None:
            self._names[key] = path
            return
        if other == path:
            raise UnsafeArchiveError(f"The archive holds {path!r} twice.")
        raise UnsafeArchiveError(
            f"The archive holds {path!r} and {other!r}: one file where letter case does not count."
        )


def safe_parts(name: str) -> list[str]:
    """The parts of a relative path that stays inside; `.` parts are dropped.

    Raises:
        UnsafeArchiveError: It leads outside, or is no name that every file system takes.
    """
    parts = [part for part in name.removesuffix("/").split("/") if part != "."]
    problem = ""
    if name.startswith("/"):
        problem = "is absolute"
    elif ".." in parts:
        problem = "leads outside"
    elif "" in parts and name not in {"./", "."}:
        problem = "has an empty part"
    elif re.search(_FORBIDDEN, name):
        problem = "has a character that no file name should have"
    elif not _has_fair_length(parts):
        problem = "is too long"
    if problem:
        raise UnsafeArchiveError(f"The archive's entry {name[:200]!r} {problem}.")
    return parts


def _has_fair_length(parts: list[str]) -> bool:
    sizes = [len(part.encode()) for part in parts]
    return (
        len(parts) <= _DEPTH and sum(sizes) <= _NAME_BYTES and max(sizes, default=0) <= _PART_BYTES
    )

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

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

BLOCK = 512
_PIECE_BYTES = 1 << 18
_RECORD_BYTES = 1 << 16
_NAME_BYTES = 4096
_PART_BYTES = 255
_DEPTH = 64
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
    result = _unpack(reader, target, limits or Limits())
    reader.finish()
    _require_digest(digest, reader.compressed.hexdigest())
    _require_digest(diff_id, reader.uncompressed.hexdigest())
    return result


def unpack_tar(source: BinaryIO, target: Path, *, limits: Limits | None = None) -> Unpacked:
    """Unpacks an uncompressed archive; see `unpack_tar_gz`."""
    return _unpack(source, target, limits or Limits())


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
        while piece := self.read(_PIECE_BYTES):
            if piece.strip(b"\0"):
                raise UnsafeArchiveError("The archive holds data after its end.")

    def _next_member(self) -> bool:
        self._pending = self._inflater.unused_data or self._load()
        if not self._pending:
            return False
        self._inflater = zlib.decompressobj(_GZIP)
        return True

    def _load(self) -> bytes:
        data = self._source.read(_PIECE_BYTES)
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


class _Reader:
    """Exact reads from either kind of stream."""

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self._read = read

    def exactly(self, size: int) -> bytes:
        """All of `size` bytes, which the caller has bounded."""
        data = b""
        while len(data) < size:
            piece = self._read(size - len(data))
            if not piece:
                raise UnsafeArchiveError("The archive is cut off.")
            data += piece
        return data

    def copy(self, size: int, write: Callable[[bytes], object]) -> None:
        """Passes `size` bytes on, and skips the padding after them."""
        left = size
        while left:
            piece = self._read(min(left, _PIECE_BYTES))
            if not piece:
                raise UnsafeArchiveError("The archive is cut off.")
            write(piece)
            left -= len(piece)
        self.exactly(-size % BLOCK)


@dataclass(frozen=True)
class _Header:
    name: str
    size: int
    kind: str
    executable: bool


def _unpack(source: BinaryIO | _GzipReader, target: Path, limits: Limits) -> Unpacked:
    reader = _Reader(source.read)
    tree = _Tree(target, limits)
    with durable.storage_errors(f"what is unpacked into {target}"):
        target.mkdir(parents=True, exist_ok=True)
        while header := _read_header(reader, limits):
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
        parts = _safe_parts(name)
        path = "/".join(parts)
        if path in self._listed:
            raise UnsafeArchiveError(f"The archive holds {path!r} twice.")
        self._listed.add(path)
        self._make_folders(parts)

    def add_file(self, header: _Header, reader: _Reader) -> None:
        parts = _safe_parts(header.name)
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
        other = self._names.setdefault(name_key(path), path)
        if other is path:
            return
        if other == path:
            raise UnsafeArchiveError(f"The archive holds {path!r} twice.")
        raise UnsafeArchiveError(
            f"The archive holds {path!r} and {other!r}: one file where letter case does not count."
        )


def _safe_parts(name: str) -> list[str]:
    """The parts of a relative path that stays inside; `.` parts are dropped."""
    parts = [part for part in name.removesuffix("/").split("/") if part != "."]
    problem = ""
    if name.startswith("/"):
        problem = "is absolute"
    elif ".." in parts:
        problem = "leads outside"
    elif "" in parts and name not in {"./", "."}:
        problem = "has an empty part"
    elif not name.isprintable() or "\\" in name:
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


def _read_header(reader: _Reader, limits: Limits) -> _Header | None:
    """The next entry with its long-name records applied; None at the end of the archive."""
    overrides: dict[str, str] = {}
    while True:
        block = reader.exactly(BLOCK)
        if not any(block):
            if overrides or any(reader.exactly(BLOCK)):
                raise UnsafeArchiveError("The archive has no proper end.")
            return None
        kind, size = _checked(block)
        if kind not in "xgL":
            break
        overrides |= _read_record(reader, kind, size)
    size = _parse_decimal(overrides["size"]) if "size" in overrides else size
    if kind not in "05":
        raise UnsafeArchiveError(
            f"The archive holds a link, device or other special entry (type {kind!r})."
        )
    if kind == "5" and size:
        raise UnsafeArchiveError("The archive holds a folder with content.")
    if size > limits.max_bytes:
        raise UnsafeArchiveError(f"The archive unpacks to over {limits.max_bytes} bytes.")
    return _Header(
        name=overrides.get("path") or _ustar_name(block),
        size=size,
        kind=kind,
        executable=bool(_number(block[100:108]) & 0o100),
    )


def _checked(block: bytes) -> tuple[str, int]:
    """Type and size from a header block with a right checksum."""
    blanked = block[:148] + b" " * 8 + block[156:]
    if _number(block[148:156]) != sum(blanked) or block[257:262] != b"ustar":
        raise UnsafeArchiveError("The archive is damaged, or no tar file.")
    kind = block[156:157].replace(b"\0", b"0").decode("ascii", "replace")
    return kind, _number(block[124:136])


def _number(field: bytes) -> int:
    """Octal digits, or the GNU form with the top bit set for large numbers."""
    if field[0] == 0x80:  # noqa: PLR2004 - the marker of that form
        return int.from_bytes(field[1:], "big")
    text = field.strip(b" \0")
    if not re.fullmatch(rb"[0-7]*", text):
        raise UnsafeArchiveError("The archive is damaged: a header holds no octal number.")
    return int(text or b"0", 8)


def _ustar_name(block: bytes) -> str:
    name = _text(block[:100])
    prefix = _text(block[345:500]) if block[257:263] == b"ustar\0" else ""
    return f"{prefix}/{name}" if prefix else name


def _text(field: bytes) -> str:
    try:
        return field.split(b"\0", 1)[0].decode("utf-8")
    except UnicodeDecodeError as error:
        raise UnsafeArchiveError("The archive holds a name that is not UTF-8.") from error


def _read_record(reader: _Reader, kind: str, size: int) -> dict[str, str]:
    """A pax (`x`, `g`) or GNU long-name (`L`) record, in the terms of pax."""
    if size > _RECORD_BYTES:
        raise UnsafeArchiveError("The archive holds a record that is too long.")
    body = reader.exactly(size)
    reader.exactly(-size % BLOCK)
    if kind == "L":
        return {"path": _text(body)}
    records = _parse_pax(body)
    if kind == "g":
        if records.keys() & {"path", "size", "linkpath"}:
            raise UnsafeArchiveError("The archive names all of its entries at once.")
        return {}
    if any(key.startswith("GNU.sparse") for key in records):
        raise UnsafeArchiveError("The archive holds a sparse file.")
    return records


def _parse_pax(body: bytes) -> dict[str, str]:
    """`LENGTH key=value newline`, one after the other."""
    records: dict[str, str] = {}
    while body:
        match = re.match(rb"([1-9][0-9]{0,5}) ([^=\0]+)=", body)
        length = int(match.group(1)) if match else 0
        if not match or not match.end() < length <= len(body) or body[length - 1] != ord("\n"):
            raise UnsafeArchiveError("The archive holds a damaged pax record.")
        value = body[match.end() : length - 1]
        key = match.group(2).decode("utf-8", "replace")
        if key in {"path", "size"}:
            if b"\0" in value:
                raise UnsafeArchiveError("The archive holds a name with a zero byte.")
            records[key] = _text(value)
        else:
            records[key] = ""
        body = body[length:]
    return records


def _parse_decimal(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,18}", text):
        raise UnsafeArchiveError("The archive is damaged: a pax record holds no size.")
    return int(text)

"""Tar archives whose bytes depend on names and contents alone.

The headers are written by hand because `tarfile` has changed what it writes between Python
versions. Entries are sorted, owned by 0:0, dated at the epoch and carry no extended attributes;
a pax record appears only where a name is too long or not ASCII, or a file is 8 GiB or more.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from scoring import digest as digests
from scoring.archive import name_key, safe_parts
from scoring.errors import DigestMismatchError, PackagingError, UnsafeArchiveError
from scoring.tarheaders import BLOCK

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_READ_BYTES = 1 << 20
_OCTAL_SIZE_LIMIT = 8 << 30
_NAME_BYTES = 100
_PREFIX_BYTES = 155
_FILE_MODES = {False: 0o644, True: 0o755}
_DIRECTORY_MODE = 0o755


class FileEntry(msgspec.Struct, frozen=True):
    """One regular file of a layer.

    Attributes:
        path: Inside the archive, with forward slashes and without a leading one.
        source: The content itself, or the file that holds it.
        size: In bytes; a file of another size when it is read is an error.
        executable: Mode 0755 instead of 0644.
        digest: What a file's content has to have; empty for anything.
    """

    path: str
    source: bytes | Path
    size: int
    executable: bool = False
    digest: str = ""

    @classmethod
    def from_bytes(cls, path: str, content: bytes) -> FileEntry:
        """An entry with its content in memory."""
        return cls(path=path, source=content, size=len(content))

    @classmethod
    def from_file(cls, path: str, source: Path, *, executable: bool | None = None) -> FileEntry:
        """An entry read from disk; the owner's x bit counts unless `executable` is given."""
        status = source.stat()
        runs = bool(status.st_mode & 0o100) if executable is None else executable
        return cls(path=path, source=source, size=status.st_size, executable=runs)


def tar_stream(entries: Iterable[FileEntry]) -> Iterator[bytes]:
    """The archive in pieces of at most 1 MiB, the folders above each file included.

    Raises:
        PackagingError: Two names are equal or differ in letter case only, or a file changed
            while it was read.
        DigestMismatchError: A file has not the digest that it should have.
    """
    ordered = list(entries)
    _require_safe(ordered)
    ordered.sort(key=lambda entry: entry.path.encode())
    written: set[str] = set()
    for entry in ordered:
        for folder in _folders(entry.path):
            if folder not in written:
                written.add(folder)
                yield _header(folder + "/", 0, _DIRECTORY_MODE, b"5")
        yield file_header(entry.path, entry.size, executable=entry.executable)
        yield from _content(entry)
        yield bytes(-entry.size % BLOCK)
    yield bytes(2 * BLOCK)


def file_header(path: str, size: int, *, executable: bool = False) -> bytes:
    """What stands before a file's content; zeros up to a full block follow the content."""
    return _header(path, size, _FILE_MODES[executable], b"0")


def _folders(path: str) -> Iterator[str]:
    parts = path.split("/")
    for depth in range(1, len(parts)):
        yield "/".join(parts[:depth])


def _require_safe(entries: Iterable[FileEntry]) -> None:
    """Unpacking refuses such archives, so that they must not be made."""
    names: dict[str, str] = {}
    files = set()
    for entry in entries:
        try:
            safe_parts(entry.path)
        except UnsafeArchiveError as error:
            raise PackagingError(
                f"A layer cannot hold {entry.path!r}: {error.message}", hint="Rename that file."
            ) from error
        if entry.path in files:
            raise PackagingError(f"The layer would hold {entry.path!r} twice.")
        files.add(entry.path)
        for name in (*_folders(entry.path), entry.path):
            other = names.setdefault(name_key(name), name)
            if other != name:
                raise PackagingError(
                    f"{name!r} and {other!r} are one file where letter case does not count.",
                    hint="Rename one of them.",
                )


def _content(entry: FileEntry) -> Iterator[bytes]:
    if isinstance(entry.source, bytes):
        yield entry.source
        return
    left, sha256 = entry.size, hashlib.sha256()
    with entry.source.open("rb", buffering=0) as file:
        while left and (piece := file.read(min(_READ_BYTES, left))):
            left -= len(piece)
            if entry.digest:
                sha256.update(piece)
            yield piece
        changed = left > 0 or bool(file.read(1))
    if changed:
        raise PackagingError(
            f"{entry.source} changed while it was read.",
            hint="Build again when nothing writes to it.",
        )
    if entry.digest and sha256.hexdigest() != digests.parse(entry.digest):
        raise DigestMismatchError(
            f"The stored file {entry.path} is damaged: it has not the digest {entry.digest}.",
            hint="Register the same file again, which repairs it, or restore it from a backup.",
        )


def _header(path: str, size: int, mode: int, kind: bytes) -> bytes:
    records: dict[str, str] = {}
    split = _split_name(path)
    if split is None:
        records["path"] = path
        split = (b"", path.encode("ascii", "replace")[-_NAME_BYTES:])
    if size >= _OCTAL_SIZE_LIMIT:
        records["size"] = str(size)
    block = _ustar(split, 0 if "size" in records else size, mode, kind)
    return _pax(records) + block if records else block


def _split_name(path: str) -> tuple[bytes, bytes] | None:
    """The ustar prefix and name; None where they cannot hold the path."""
    if not path.isascii():
        return None
    name = path.encode("ascii")
    if len(name) <= _NAME_BYTES:
        return b"", name
    at = name.find(b"/", len(name) - _NAME_BYTES - 1, len(name) - 1)
    return (name[:at], name[at + 1 :]) if 0 < at <= _PREFIX_BYTES else None


def _ustar(split: tuple[bytes, bytes], size: int, mode: int, kind: bytes) -> bytes:
    prefix, name = split
    fields = (
        name.ljust(_NAME_BYTES, b"\0"),
        b"%07o\0%07o\0%07o\0" % (mode, 0, 0),  # mode, owner, group
        b"%011o\0%011o\0" % (size, 0),  # size, time
        b" " * 8,  # the checksum counts itself as blanks
        kind,
        bytes(_NAME_BYTES),  # link target
        b"ustar\x0000",
        bytes(64),  # names of owner and group
        b"%07o\0%07o\0" % (0, 0),  # device numbers
        prefix.ljust(_PREFIX_BYTES, b"\0"),
        bytes(12),
    )
    block = b"".join(fields)
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def _pax(records: dict[str, str]) -> bytes:
    body = b"".join(_pax_record(key, records[key]) for key in sorted(records))
    header = _ustar((b"", b"././@PaxHeader"), len(body), 0o644, b"x")
    return header + body + bytes(-len(body) % BLOCK)


def _pax_record(key: str, value: str) -> bytes:
    """`LENGTH key=value newline`, where the length counts its own digits."""
    rest = f" {key}={value}\n".encode()
    length = len(rest)
    while len(str(length)) + len(rest) != length:
        length = len(str(length)) + len(rest)
    return str(length).encode() + rest

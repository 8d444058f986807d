"""Reads the headers of tar archives: ustar with the pax and GNU records for names and sizes.

Strict on purpose: what is not of that form is refused, and nothing is read without a bound.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from scoring.errors import UnsafeArchiveError

if TYPE_CHECKING:
    from collections.abc import Callable

BLOCK = 512
PIECE_BYTES = 1 << 18
_RECORD_BYTES = 1 << 16


class TarReader:
    """Exact reads from a stream that may answer in pieces.

    Args:
        read: Answers at most so many bytes, none at the end.
    """

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
            piece = self._read(min(left, PIECE_BYTES))
            if not piece:
                raise UnsafeArchiveError("The archive is cut off.")
            write(piece)
            left -= len(piece)
        self.exactly(-size % BLOCK)


@dataclass(frozen=True)
class TarHeader:
    """An entry of an archive.

    Attributes:
        name: As it stands there, unchecked.
        size: Of its content.
        kind: `0` a regular file, `5` a folder; where asked for, `1` a hard link, `2` a symbolic
            one, `3`, `4` and `6` devices and pipes.
        executable: The owner's x bit.
        link: What a link leads to, unchecked.
    """

    name: str
    size: int
    kind: str
    executable: bool
    link: str = ""


def read_header(reader: TarReader, max_bytes: int, *, kinds: str = "05") -> TarHeader | None:
    """The next entry with its long-name records applied; None at the end of the archive.

    Args:
        reader: At the beginning of an entry.
        max_bytes: Of its content.
        kinds: Which kinds of entries are taken; others are refused.

    Raises:
        UnsafeArchiveError: It is damaged, cut off, a link or device, or larger than `max_bytes`.
    """
    overrides: dict[str, str] = {}
    while True:
        block = reader.exactly(BLOCK)
        if not any(block):
            if overrides or any(reader.exactly(BLOCK)):
                raise UnsafeArchiveError("The archive has no proper end.")
            return None
        kind, size = _checked(block)
        if kind not in "xgLK":
            break
        overrides |= _read_record(reader, kind, size)
    size = _parse_decimal(overrides["size"]) if "size" in overrides else size
    if kind not in kinds:
        raise UnsafeArchiveError(
            f"The archive holds a link, device or other special entry (type {kind!r})."
        )
    if kind != "0" and size:
        raise UnsafeArchiveError(
            f"The archive holds {'a folder' if kind == '5' else 'an entry'} with content."
        )
    if size > max_bytes:
        raise UnsafeArchiveError(f"The archive unpacks to over {max_bytes} bytes.")
    return TarHeader(
        name=overrides.get("path") or _ustar_name(block),
        size=size,
        kind=kind,
        executable=bool(_number(block[100:108]) & 0o100),
        link=(overrides.get("linkpath") or _text(block[157:257])) if kind in "12" else "",
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


def _read_record(reader: TarReader, kind: str, size: int) -> dict[str, str]:
    """A pax (`x`, `g`) or GNU long-name (`L`, `K`) record, in the terms of pax."""
    if size > _RECORD_BYTES:
        raise UnsafeArchiveError("The archive holds a record that is too long.")
    body = reader.exactly(size)
    reader.exactly(-size % BLOCK)
    if kind in "LK":
        return {"path" if kind == "L" else "linkpath": _text(body)}
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
        if key in {"path", "size", "linkpath"}:
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

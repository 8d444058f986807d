"""The wire format of protobuf: fields of messages to bytes, and back. Pure.

By hand, because the few messages of traces need little of it, and a library for all of it is
several megabytes in every worker. What is zero or empty is left out, as proto3 wants it.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5

_SEVEN_BITS, _MORE = 0x7F, 0x80
_64_BITS = (1 << 64) - 1
_LONGEST_VARINT = 10
_SMALL = tuple(bytes((number,)) for number in range(_MORE))
_FIXED64, _FIXED32, _DOUBLE = struct.Struct("<Q"), struct.Struct("<I"), struct.Struct("<d")
_FIXED_BYTES = {FIXED64: 8, FIXED32: 4}


class WireError(ValueError):
    """What was read is no message."""


def varint(number: int) -> bytes:
    """An integer in groups of seven bits; a negative one as 64 bits of two's complement."""
    if 0 <= number <= _SEVEN_BITS:
        return _SMALL[number]
    number &= _64_BITS
    groups = bytearray()
    while number > _SEVEN_BITS:
        groups.append(number & _SEVEN_BITS | _MORE)
        number >>= 7
    groups.append(number)
    return bytes(groups)


def key(number: int, kind: int) -> bytes:
    """What stands before the value of a field; made once for each field."""
    return varint(number << 3 | kind)


def chunk(key: bytes, data: bytes) -> bytes:
    """Bytes, text or a message, empty or not: for members of a `oneof`, and elements of a list."""
    return key + varint(len(data)) + data


def text(key: bytes, value: str) -> bytes:
    """A field of text; what cannot be UTF-8 in it becomes `?`."""
    return chunk(key, encoded(value)) if value else b""


def encoded(value: str) -> bytes:
    """Text as every reader of protobuf can take it."""
    return value.encode("utf-8", "replace")


def integer(key: bytes, value: int) -> bytes:
    """A field of an integer, or of an enumeration."""
    return key + varint(value) if value else b""


def fixed64(key: bytes, value: int) -> bytes:
    """A field of 64 bits without a sign."""
    return key + _FIXED64.pack(value & _64_BITS) if value else b""


def fixed32(key: bytes, value: int) -> bytes:
    """A field of 32 bits without a sign."""
    return key + _FIXED32.pack(value) if value else b""


def double(key: bytes, value: float) -> bytes:
    """A member of a `oneof`, zero or not."""
    return key + _DOUBLE.pack(value)


def fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The number and the value of each field; integers have no sign.

    Raises:
        WireError: It is no message.
    """
    at = 0
    while at < len(data):
        head, at = _read_varint(data, at)
        kind = head & 7
        value: int | bytes
        if kind == VARINT:
            value, at = _read_varint(data, at)
        elif kind == LENGTH:
            length, at = _read_varint(data, at)
            value, at = _read_bytes(data, at, length)
        elif kind in _FIXED_BYTES:
            value, at = _read_bytes(data, at, _FIXED_BYTES[kind])
        else:
            raise WireError(f"a field of the unknown kind {kind}")
        yield head >> 3, value


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    number = 0
    for group, byte in enumerate(data[at : at + _LONGEST_VARINT]):
        number |= (byte & _SEVEN_BITS) << 7 * group
        if byte < _MORE:
            return number & _64_BITS, at + group + 1
    raise WireError("an integer without an end")


def _read_bytes(data: bytes, at: int, length: int) -> tuple[bytes, int]:
    if at + length > len(data):
        raise WireError("a field that is longer than its message")
    return data[at : at + length], at + length

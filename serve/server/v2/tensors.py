"""Binary tensors: little-endian, row by row, without gaps; strings behind their lengths. Pure.

Nothing is allocated for a size that a request claims: sizes are compared with the bytes that are
there first.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, Any

import numpy as np

from scoring.errors import WrongShapeError, WrongTypeError
from serve.server.v2.datatypes import BF16, BYTES, NUMPY

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    Raw = bytes | bytearray | memoryview

_LENGTH = Struct("<I")


def element_count(shape: Sequence[int]) -> int:
    """How many elements a shape has; Python's whole numbers do not overflow."""
    count = 1
    for size in shape:
        count *= size
    return count


def from_raw(raw: Raw, datatype: str, shape: Sequence[int], where: str) -> NDArray[Any]:
    """The array of a binary tensor.

    Args:
        raw: Its bytes, all of them. Numbers are not copied where their place in memory allows it.
        datatype: Of the protocol. BF16 is widened to float32.
        shape: No size is negative.
        where: The tensor's place in the request, for errors.

    Returns:
        An array of the shape, which may be read-only and lie at any address (what is put together
        with others is copied anyway, see `serve.server.models.batches`); of `str` objects for
        BYTES.

    Raises:
        WrongShapeError: There are more or fewer bytes than the shape takes.
        WrongTypeError: A string is not UTF-8, or a boolean neither 0 nor 1.
    """
    count = element_count(shape)
    if datatype == BYTES:
        return strings_from_raw(raw, count, where).reshape(tuple(shape))
    dtype = NUMPY[datatype]
    if len(raw) != count * dtype.itemsize:
        raise WrongShapeError(
            f"{where} has {len(raw)} bytes of binary data; {datatype} of shape {list(shape)} takes "
            f"{count * dtype.itemsize}.",
            where=where,
        )
    array = np.frombuffer(raw, dtype=dtype).reshape(tuple(shape))
    if datatype == "BOOL":
        return _booleans(array, where)
    if datatype == BF16:
        return (array.astype("<u4") << 16).view("<f4")
    return array


def _booleans(array: NDArray[Any], where: str) -> NDArray[Any]:
    values = array.view(np.uint8)
    if values.size and values.max() > 1:
        raise WrongTypeError(
            f"{where} holds the byte {values.max()}; a boolean is 0 or 1.", where=where
        )
    return array


def strings_from_raw(raw: Raw, count: int, where: str) -> NDArray[Any]:
    """The strings of a BYTES tensor, in one dimension.

    Args:
        raw: Each string behind its length in four bytes.
        count: How many there have to be.
        where: The tensor's place in the request, for errors.

    Raises:
        WrongShapeError: There are more or fewer of them, or one is cut off.
        WrongTypeError: One is not UTF-8.
    """
    end = len(raw)
    if count * _LENGTH.size > end:
        raise WrongShapeError(
            f"{where} has {end} bytes of binary data, too few for {count} strings behind lengths "
            "of 4 bytes.",
            where=where,
        )
    found = np.empty(count, dtype=object)
    data = bytes(raw)
    begin = 0
    for number in range(count):
        if begin + _LENGTH.size > end:
            raise _cut_off(number, count, where)
        (length,) = _LENGTH.unpack_from(data, begin)
        begin += _LENGTH.size
        if length > end - begin:
            raise _cut_off(number, count, where)
        found[number] = decoded(data[begin : begin + length], f"{where}, element {number},")
        begin += length
    if begin != end:
        raise WrongShapeError(
            f"{where} has {end - begin} bytes of binary data behind its {count} strings.",
            where=where,
        )
    return found


def _cut_off(number: int, count: int, where: str) -> WrongShapeError:
    return WrongShapeError(
        f"{where} ends within element {number} of {count}: each string stands behind its length in "
        "4 bytes (little-endian).",
        where=where,
    )


def decoded(data: bytes, where: str) -> str:
    """A string of a request.

    Raises:
        WrongTypeError: It is not UTF-8.
    """
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise WrongTypeError(
            f"{where} is not UTF-8: its byte {error.start} is {data[error.start]:#04x}.",
            hint="Models here take text; send other bytes as base64 or as UINT8.",
            where=where.rstrip(","),
        ) from None


def to_raw(array: NDArray[Any]) -> bytes:
    """The bytes of an array of numbers, booleans or strings (an object array)."""
    if array.dtype.kind == "O":
        return strings_to_raw(array.ravel().tolist())
    return array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()


def strings_to_raw(values: Iterable[Any]) -> bytes:
    """Each string behind its length in four bytes."""
    parts: list[bytes] = []
    for value in values:
        data = as_bytes(value)
        parts.append(_LENGTH.pack(len(data)))
        parts.append(data)
    return b"".join(parts)


def as_bytes(value: Any) -> bytes:
    """An element of a string output as bytes; a missing one is empty."""
    if isinstance(value, bytes):
        return value
    return b"" if value is None else str(value).encode("utf-8", "replace")

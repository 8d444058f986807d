"""What goes over the pipes to a model in a process of its own: documents, arrays, text.

A frame is its length, 8 bytes, and one document in MessagePack; arrays stand in it as they stand
in memory. Nothing in it can name code.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import IO, TYPE_CHECKING, Any

import msgspec
import numpy as np

from scoring.errors import MalformedPayloadError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_LENGTH = struct.Struct("!Q")
MAX_BYTES = 1 << 32


def write(pipe: IO[bytes], document: Mapping[str, Any]) -> None:
    """Sends one document; raises `OSError` where nobody reads."""
    data = msgspec.msgpack.encode(document)
    pipe.write(_LENGTH.pack(len(data)))
    pipe.write(data)
    pipe.flush()


def read(pipe: IO[bytes]) -> dict[str, Any] | None:
    """The next document; None at the end, also in the middle of one.

    Raises:
        MalformedPayloadError: It is none.
    """
    head = pipe.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        return None
    (length,) = _LENGTH.unpack(head)
    if length > MAX_BYTES:
        raise MalformedPayloadError(f"A message of {length} bytes is too long.")
    data = pipe.read(length)
    if len(data) < length:
        return None
    try:
        return msgspec.msgpack.decode(data, type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise MalformedPayloadError(f"A message cannot be read: {error}.") from error


def pack(values: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Arrays, and lists of objects, as part of a document."""
    return [{"name": name, **_packed(value)} for name, value in values.items()]


def unpack(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """What was packed."""
    return {part["name"]: _unpacked(part) for part in parts}


def _packed(value: Any) -> dict[str, Any]:
    if not isinstance(value, np.ndarray):
        return {"list": _plain(value)}
    if value.dtype.kind in "OUS":
        return {"list": _plain(value.ravel().tolist()), "shape": list(value.shape)}
    array: NDArray[Any] = np.ascontiguousarray(value)
    return {"data": array.tobytes(), "dtype": array.dtype.str, "shape": list(value.shape)}


def _plain(value: Any) -> Any:
    """NumPy's single values, and whatever contains them, as MessagePack has them."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, dict):
        return {_plain(key): _plain(inner) for key, inner in value.items()}
    return value


def _unpacked(part: dict[str, Any]) -> Any:
    if "data" in part:
        array = np.frombuffer(part["data"], np.dtype(part["dtype"]))
        return array.reshape(part["shape"])
    if "shape" not in part:
        return part["list"]
    objects = np.empty(len(part["list"]), dtype=object)
    objects[:] = part["list"]
    return objects.reshape(part["shape"])

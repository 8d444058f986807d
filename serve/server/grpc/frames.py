"""HTTP/2 frames (RFC 9113) as bytes, and the faults of those who send them. Pure.

The two frames that make up nearly all of gRPC, whole HEADERS and DATA without padding, are read by
the connection from their nine bytes of head. Every other one is read by hyperframe.
"""

from __future__ import annotations

from struct import Struct
from typing import Any

from hyperframe.exceptions import HyperframeError, InvalidDataError
from hyperframe.frame import Frame

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEAD_SIZE = 9

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY = range(8)
WINDOW_UPDATE, CONTINUATION = 8, 9

END_STREAM = ACK = 0x1
END_HEADERS = 0x4
PADDED = 0x8

NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, FLOW_CONTROL_ERROR = range(4)
STREAM_CLOSED, FRAME_SIZE_ERROR, REFUSED_STREAM, CANCEL, COMPRESSION_ERROR = range(5, 10)
ENHANCE_YOUR_CALM = 0xB

HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE = range(1, 5)
MAX_FRAME_SIZE, MAX_HEADER_LIST_SIZE = 5, 6

DEFAULT_WINDOW = 65_535
LARGEST_WINDOW = 2**31 - 1
DEFAULT_FRAME_SIZE = 16_384
LARGEST_FRAME_SIZE = 2**24 - 1
LARGEST_STREAM = 2**31 - 1
DEFAULT_TABLE = 4096

pack_head = Struct(">HBBBL").pack
"""Upper 16 and lower 8 bits of the length, type, flags, stream."""
unpack_head = Struct(">HBBBL").unpack_from
_pack_long = Struct(">L").pack
_pack_setting = Struct(">HL").pack


class ConnectionFault(Exception):  # noqa: N818 - HTTP/2's word; told by a frame, not to a user
    """The peer breaks HTTP/2: the connection ends with this code."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class StreamFault(Exception):  # noqa: N818 - as above
    """The peer breaks HTTP/2 on one stream, which ends with this code."""

    def __init__(self, stream_id: int, code: int) -> None:
        super().__init__(stream_id, code)
        self.stream_id = stream_id
        self.code = code


def frame(kind: int, flags: int, stream_id: int, payload: bytes = b"") -> bytes:
    """Any frame."""
    size = len(payload)
    return pack_head(size >> 8, size & 0xFF, kind, flags, stream_id) + payload


def settings(values: dict[int, int]) -> bytes:
    """A SETTINGS frame."""
    pairs = b"".join(_pack_setting(name, value) for name, value in values.items())
    return frame(SETTINGS, 0, 0, pairs)


def window_update(stream_id: int, increment: int) -> bytes:
    """A WINDOW_UPDATE frame; stream 0 is the connection."""
    return frame(WINDOW_UPDATE, 0, stream_id, _pack_long(increment))


def reset(stream_id: int, code: int) -> bytes:
    """A RST_STREAM frame."""
    return frame(RST_STREAM, 0, stream_id, _pack_long(code))


def go_away(last: int, code: int, reason: str = "") -> bytes:
    """A GOAWAY frame: streams over `last` are not answered."""
    return frame(GOAWAY, 0, 0, _pack_long(last) + _pack_long(code) + reason.encode())


def headers(stream_id: int, block: bytes, flags: int, most: int = DEFAULT_FRAME_SIZE) -> bytes:
    """A header block as HEADERS and as many CONTINUATION frames as it needs.

    Args:
        stream_id: The stream.
        block: From the header compression.
        flags: END_STREAM or 0.
        most: The peer's largest frame.
    """
    if len(block) <= most:
        return frame(HEADERS, flags | END_HEADERS, stream_id, block)
    parts = [frame(HEADERS, flags, stream_id, block[:most])]
    for begin in range(most, len(block), most):
        last = begin + most >= len(block)
        part = block[begin : begin + most]
        parts.append(frame(CONTINUATION, END_HEADERS if last else 0, stream_id, part))
    return b"".join(parts)


def parse(data: bytes) -> Any:
    """One whole frame of a type that HTTP/2 knows, its nine bytes of head included.

    Raises:
        ConnectionFault: It is not well-formed.
    """
    try:
        found, _ = Frame.parse_frame_header(memoryview(data)[:HEAD_SIZE])
        found.parse_body(memoryview(data)[HEAD_SIZE:])
    except InvalidDataError as error:
        raise ConnectionFault(PROTOCOL_ERROR, str(error)) from None
    except HyperframeError as error:
        raise ConnectionFault(FRAME_SIZE_ERROR, str(error)) from None
    return found

"""One HTTP/2 client: frames to streams under limits, and the end of it all (docs/adr/0041).

The connection takes over from the HTTP/1.1 one when the client's first bytes are HTTP/2's preface.
"""

from __future__ import annotations

import logging
from math import inf
from typing import TYPE_CHECKING, Any

from serve.server.grpc import frames as f
from serve.server.grpc.heads import Heads
from serve.server.grpc.leaving import RESET_COST, Leaving
from serve.server.grpc.rest import RestStream
from serve.server.grpc.rpc import RpcStream
from serve.server.grpc.service import service_of
from serve.server.telemetry.accesslog import quoted

if TYPE_CHECKING:
    import asyncio

    from serve.server.grpc.streams import Stream
    from serve.server.hub import Hub

logger = logging.getLogger(__name__)

MAX_STREAMS = 256
STREAM_WINDOW = 1 << 20
CONNECTION_WINDOW = 16 << 20
FRAME_SIZE = 1 << 16
_HALF_STREAM = STREAM_WINDOW // 2
_HALF_CONNECTION = CONNECTION_WINDOW // 2
_MOST_BLOCK_PARTS = 32
_MOST_HELD = 4
_OTHER_FLAGS = 0x2C
"""Of HEADERS: padding, a priority, and the end of the head."""


class GrpcConnection(Leaving):
    """One client that speaks HTTP/2.

    Args:
        hub: What all connections share.
        transport: Of the connection, which is ours from now on.
        first: What has come of it so far: the preface, or its beginning, and what follows.

    Attributes:
        service: The methods.
        guard: Who may ask; None: everyone.
        most: Bytes of one message or body.
        address: Of the client.
        client: The same, as the access log writes it.
    """

    def __init__(self, hub: Hub, transport: asyncio.Transport, first: bytes) -> None:
        super().__init__(hub, transport)
        self.service = service_of(hub)
        self.guard = hub.guard
        self.most = hub.settings.max_body_bytes
        self.address = _address(transport)
        self.client = quoted(self.address.encode())
        self._heads = Heads(self._limits.max_header_bytes, self._limits.max_headers)
        self._pending: list[bytes] = []
        self._pending_size, self._needed = 0, len(f.PREFACE)
        self._greeted = False
        # The only frame that may come now; None for any.
        self._expected: int | None = f.SETTINGS
        # A header block whose end has not come: its stream, flags and parts.
        self._block_of, self._block_flags = 0, 0
        self._block: list[bytes] = []
        self._credit = 0
        self._others = {
            f.DATA: self._on_padded_data,
            f.HEADERS: self._on_headers,
            f.PRIORITY: self._on_priority,
            f.RST_STREAM: self._on_reset,
            f.SETTINGS: self._on_settings,
            f.PUSH_PROMISE: self._on_push,
            f.PING: self._on_ping,
            f.WINDOW_UPDATE: self._on_window_update,
            f.CONTINUATION: self._on_continuation,
        }
        transport.set_protocol(self)
        admitted = hub.admit(self)  # type: ignore[arg-type]
        self.send(self._greeting())
        if admitted:
            self.data_received(first)
        else:
            self._end(f.ENHANCE_YOUR_CALM, "the server has as many connections as it may")

    def _greeting(self) -> bytes:
        values = {
            f.MAX_CONCURRENT_STREAMS: MAX_STREAMS,
            f.INITIAL_WINDOW_SIZE: STREAM_WINDOW,
            f.MAX_FRAME_SIZE: FRAME_SIZE,
            f.MAX_HEADER_LIST_SIZE: self._limits.max_header_bytes,
        }
        return f.settings(values) + f.window_update(0, CONNECTION_WINDOW - f.DEFAULT_WINDOW)

    # The transport's callbacks

    def data_received(self, data: bytes) -> None:
        """Takes frames; whatever they bring about goes out at the end of the turn."""
        if self._closing:
            return
        self._flushing = True  # at the end, here
        self._heard, self._asked = self.hub.clock.now, inf
        try:
            self._read(data)
        except f.ConnectionFault as fault:
            self._end(fault.code, fault.reason)
        except Exception:
            logger.exception("An HTTP/2 connection could not be handled")
            self._end(f.INTERNAL_ERROR, "the server failed")
        self.flush()

    @property
    def busy(self) -> int:
        """How many requests wait here for their answer."""
        return len(self._streams)

    def eof_received(self) -> bool:
        """The client sends nothing more; what it has asked is still answered."""
        self._eof = True
        if self._closing:
            return False
        for stream in tuple(self._streams.values()):
            if not stream.ended:
                self._drop(stream)
        return bool(self._streams)

    def connection_lost(self, _exc: Exception | None) -> None:
        """Ends; nothing that is only for this client goes on."""
        self._closing = True
        self._out.clear()
        self._lose_streams()
        self._others.clear()  # they know this: no cycle is left for the collector
        self.hub.leave(self)  # type: ignore[arg-type]

    # Bytes to frames

    def _read(self, data: bytes) -> None:
        """Reads all frames that are whole; the rest waits."""
        if self._pending_size:
            self._pending.append(data)
            self._pending_size += len(data)
            if self._pending_size < self._needed:
                return
            data = b"".join(self._pending)
            self._pending = []
        self._pending_size = 0
        begin, end = (0, len(data)) if self._greeted else self._greet(data)
        self._needed = f.HEAD_SIZE
        while end - begin >= f.HEAD_SIZE and not self._closing:
            high, low, kind, flags, stream_id = f.unpack_head(data, begin)
            size = high << 8 | low
            if size > FRAME_SIZE:
                raise f.ConnectionFault(f.FRAME_SIZE_ERROR, "a frame is too large")
            after = begin + f.HEAD_SIZE + size
            if after > end:
                self._needed = f.HEAD_SIZE + size
                break
            try:
                self._on_frame(kind, flags, stream_id & f.LARGEST_STREAM, data, begin, after)
            except f.StreamFault as fault:
                self._break(fault)
            begin = after
        if begin < end:
            self._pending = [data[begin:]]
            self._pending_size = end - begin

    def _greet(self, data: bytes) -> tuple[int, int]:
        """Where the frames begin and end behind the preface."""
        size = len(f.PREFACE)
        if not f.PREFACE.startswith(data[:size]):
            raise f.ConnectionFault(f.PROTOCOL_ERROR, "the preface is not HTTP/2's")
        if len(data) < size:
            self._needed = size
            self._pending = [data]
            self._pending_size = len(data)
            return 0, 0
        self._greeted = True
        return size, len(data)

    def _on_frame(
        self, kind: int, flags: int, stream_id: int, data: bytes, begin: int, after: int
    ) -> None:
        """One whole frame: the bytes of `data` from `begin` to before `after`."""
        if self._expected is not None and kind != self._expected:
            raise f.ConnectionFault(f.PROTOCOL_ERROR, "another frame is expected here")
        if kind == f.DATA and not flags & f.PADDED:
            body = begin + f.HEAD_SIZE
            self._on_data(stream_id, data[body:after], after - body, flags)
        elif kind == f.HEADERS and flags & _OTHER_FLAGS == f.END_HEADERS:
            self._on_block(stream_id, data[begin + f.HEAD_SIZE : after], flags)
        else:
            other = self._others.get(kind)
            if other is None:  # GOAWAY, which changes nothing, or a type that is not known
                self._pay(1)
            else:
                other(f.parse(data[begin:after]), flags)

    # Frames of requests

    def _on_data(self, stream_id: int, data: bytes, size: int, flags: int) -> None:
        """A part of a body; `size` is with padding, as windows count."""
        self._credit += size
        if self._credit >= _HALF_CONNECTION:
            self.send(f.window_update(0, self._credit))
            self._credit = 0
        stream = self._streams.get(stream_id)
        if stream is None or stream.ended:
            self._on_late_data(stream, stream_id, flags)
            return
        stream.received += len(data)
        stream.credit += size
        if stream.credit > STREAM_WINDOW:
            raise f.StreamFault(stream_id, f.FLOW_CONTROL_ERROR)
        if flags & f.END_STREAM:
            self._check_length(stream)
            stream.ended = True
        elif not data:
            self._pay(1)
        stream.since = self._heard
        stream.receive(data)
        if stream.credit >= _HALF_STREAM:
            self.give_credit(stream)

    def give_credit(self, stream: Stream) -> None:
        """Lets the client send more on a stream, if there is room for it."""
        if stream.credit < _HALF_STREAM or stream.ended or not stream.is_hungry():
            return
        if sum(other.held() for other in self._streams.values()) > _MOST_HELD * self.most:
            stream.lost()
            self.abort_stream(stream, f.ENHANCE_YOUR_CALM)
            return
        self.send(f.window_update(stream.id, stream.credit))
        stream.credit = 0

    def _check_length(self, stream: Stream) -> None:
        if stream.head.length not in {-1, stream.received}:
            raise f.StreamFault(stream.id, f.PROTOCOL_ERROR)

    def _on_late_data(self, stream: Stream | None, stream_id: int, flags: int) -> None:
        """Data where none may come, or of a stream that we have answered already."""
        if stream_id in self._left_behind:
            self._refuse_if_taken_back(stream_id)
            if flags & f.END_STREAM:
                del self._left_behind[stream_id]
        elif stream is not None:
            raise f.StreamFault(stream_id, f.STREAM_CLOSED)
        elif stream_id == 0 or stream_id > self._last:
            raise f.ConnectionFault(f.PROTOCOL_ERROR, "data on a stream that was not opened")
        else:
            raise f.ConnectionFault(f.STREAM_CLOSED, "data on a stream that is closed")

    def _refuse_if_taken_back(self, stream_id: int) -> None:
        """What comes behind the client's own reset is a fault of that stream (RFC 9113, 5.1)."""
        if self._left_behind[stream_id]:
            raise f.StreamFault(stream_id, f.STREAM_CLOSED)

    def _on_block(self, stream_id: int, block: bytes, flags: int) -> None:
        """A whole header block: a request, or trailers."""
        if not stream_id & 1:
            raise f.ConnectionFault(f.PROTOCOL_ERROR, "a stream of a client has an odd number")
        if stream_id <= self._last:
            self._on_trailers(stream_id, block, flags)
            return
        self._last = stream_id
        head = self._heads.read(block, stream_id)
        if self._final is not None:
            self._remember(stream_id)  # the client knows that it is not answered
            return
        if len(self._streams) >= MAX_STREAMS:
            raise f.StreamFault(stream_id, f.REFUSED_STREAM)
        kind: type[RpcStream | RestStream] = RpcStream if head.is_grpc else RestStream
        stream = kind(self, stream_id, head, self._first_window)
        self._streams[stream_id] = stream
        stream.begin()
        if flags & f.END_STREAM and stream_id in self._streams:
            self._check_length(stream)
            stream.ended = True
            stream.receive(b"")

    def _on_trailers(self, stream_id: int, block: bytes, flags: int) -> None:
        self._heads.skip(block, stream_id)
        stream = self._streams.get(stream_id)
        if stream_id in self._left_behind:
            self._refuse_if_taken_back(stream_id)
            self._left_behind.pop(stream_id)
        elif stream is None:
            raise f.ConnectionFault(f.STREAM_CLOSED, "a head on a stream that is closed")
        elif stream.ended:
            raise f.StreamFault(stream_id, f.STREAM_CLOSED)
        elif not flags & f.END_STREAM:
            raise f.StreamFault(stream_id, f.PROTOCOL_ERROR)
        else:
            self._check_length(stream)
            stream.ended = True
            stream.receive(b"")

    # The other frames

    def _on_padded_data(self, frame: Any, flags: int) -> None:
        self._on_data(frame.stream_id, frame.data, frame.flow_controlled_length, flags)

    def _on_priority(self, frame: Any, _flags: int) -> None:
        self._pay(1)
        if frame.depends_on == frame.stream_id:
            raise f.StreamFault(frame.stream_id, f.PROTOCOL_ERROR)

    def _on_push(self, _frame: Any, _flags: int) -> None:
        raise f.ConnectionFault(f.PROTOCOL_ERROR, "clients push nothing")

    def _on_headers(self, frame: Any, flags: int) -> None:
        """A head with padding or a priority, or the beginning of a long one."""
        if "PRIORITY" in frame.flags and frame.depends_on == frame.stream_id:
            raise f.ConnectionFault(f.PROTOCOL_ERROR, "a stream depends on itself")
        if flags & f.END_HEADERS:
            self._on_block(frame.stream_id, bytes(frame.data), flags)
            return
        self._expected = f.CONTINUATION
        self._block_of, self._block_flags = frame.stream_id, flags
        self._block = [bytes(frame.data)]
        self._awaiting = self.hub.clock.now

    def _on_continuation(self, frame: Any, flags: int) -> None:
        if self._expected != f.CONTINUATION or frame.stream_id != self._block_of:
            raise f.ConnectionFault(f.PROTOCOL_ERROR, "a continuation of nothing")
        self._block.append(bytes(frame.data))
        if (
            len(self._block) > _MOST_BLOCK_PARTS
            or sum(map(len, self._block)) > self._limits.max_header_bytes
        ):
            raise f.ConnectionFault(f.ENHANCE_YOUR_CALM, "the head of a request is too long")
        if flags & f.END_HEADERS:
            self._expected, self._awaiting = None, inf
            block, self._block = b"".join(self._block), []
            self._on_block(self._block_of, block, self._block_flags)

    def _on_settings(self, frame: Any, flags: int) -> None:
        self._pay(1)
        if self._expected is not None:
            if flags & f.ACK:
                raise f.ConnectionFault(f.PROTOCOL_ERROR, "settings have to come first")
            self._expected, self._awaiting = None, inf
        if not flags & f.ACK:
            self._set_peer(frame.settings, self._streams)

    def _on_window_update(self, frame: Any, _flags: int) -> None:
        self._pay(1)
        stream_id, increment = frame.stream_id, frame.window_increment
        stream = self._streams.get(stream_id)
        if stream_id == 0 or stream is not None:
            self._open_window(stream, increment)
        elif stream_id > self._last:
            raise f.ConnectionFault(f.PROTOCOL_ERROR, "a window of a stream that was not opened")

    def _on_ping(self, frame: Any, flags: int) -> None:
        self._pay(1)
        if flags & f.ACK:
            self._heard_back(frame.opaque_data)
        else:
            self.send(f.frame(f.PING, f.ACK, 0, frame.opaque_data))

    def _on_reset(self, frame: Any, _flags: int) -> None:
        """The client takes back a request: what has not begun is not computed."""
        stream_id = frame.stream_id
        if stream_id > self._last:
            raise f.ConnectionFault(f.PROTOCOL_ERROR, "a reset of a stream that was not opened")
        self._pay(RESET_COST)
        unfinished = self._left_behind.pop(stream_id, None) is not None
        stream = self._streams.get(stream_id)
        if stream is not None:
            unfinished = not stream.ended
            self._drop(stream)
        if unfinished:
            self._remember(stream_id, taken_back=True)


def _address(transport: asyncio.Transport) -> str:
    name = transport.get_extra_info("peername")
    return str(name[0]) if isinstance(name, tuple) else ""

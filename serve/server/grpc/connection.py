"""One HTTP/2 client: frames to streams under limits, and the end of it all (docs/adr/0041).

The connection takes over from the HTTP/1.1 one when the client's first bytes are HTTP/2's preface.
"""

from __future__ import annotations

import logging
from math import inf
from typing import TYPE_CHECKING, Any

from serve.server.grpc import frames as f
from serve.server.grpc.heads import Heads
from serve.server.grpc.rest import RestStream
from serve.server.grpc.rpc import RpcStream
from serve.server.grpc.service import service_of
from serve.server.grpc.windows import PURSE, Sending
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
_MOST_LEFT_BEHIND = 1024
_MOST_BLOCK_PARTS = 32

# What costs us work and brings none is paid from a purse, which requests and time fill again.
_PURSE_PER_SECOND = 1_000
_RESET_COST = 20
_ANSWER_WORTH = 5
_PING = b"fieldpst"
_GRACE_S = 1.0


class GrpcConnection(Sending):
    """One client that speaks HTTP/2.

    Args:
        hub: What all connections share.
        transport: Of the connection, which is ours from now on.
        first: What has come of it so far: the preface, or its beginning, and what follows.

    Attributes:
        deadline: In the clock's time: when `expire` is due. Each tick of the clock is.
        service: The methods.
        guard: Who may ask; None: everyone.
        most: Bytes of one message or body.
        address: Of the client.
        client: The same, as the access log writes it.
    """

    def __init__(self, hub: Hub, transport: asyncio.Transport, first: bytes) -> None:
        super().__init__(hub, transport)
        self.deadline = -inf
        self.service = service_of(hub)
        self.guard = hub.guard
        self.most = hub.settings.max_body_bytes
        self.address = _address(transport)
        self.client = quoted(self.address.encode())
        self._limits = hub.settings
        self._streams: dict[int, Stream] = {}
        self._left_behind: dict[int, None] = {}
        self._heads = Heads(self._limits.max_header_bytes)
        self._pending: list[bytes] = []
        self._pending_size, self._needed = 0, len(f.PREFACE)
        self._expected: int | None = f.SETTINGS
        self._greeted = self._eof = False
        # A header block whose end has not come: its stream, flags and parts.
        self._block_of, self._block_flags = 0, 0
        self._block: list[bytes] = []
        self._last = 0
        self._credit = 0
        self._leaving = False
        self._final: int | None = None
        self._born = self._heard = self._ticked = hub.clock.now
        self._asked = inf
        self._waiting_since = self._announced = inf
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
        self._heard = self.hub.clock.now
        try:
            self._read(data)
        except f.ConnectionFault as fault:
            self._end(fault.code, fault.reason)
        except Exception:
            logger.exception("An HTTP/2 connection could not be handled")
            self._end(f.INTERNAL_ERROR, "the server failed")
        self.flush()

    def eof_received(self) -> bool:
        """The client sends nothing more; what it has asked is still answered."""
        self._eof = True
        for stream in tuple(self._streams.values()):
            if not stream.ended:
                self._drop(stream)
        self._close_if_done()
        return bool(self._streams)

    def connection_lost(self, _exc: Exception | None) -> None:
        """Ends; nothing that is only for this client goes on."""
        self._closing = True
        self._out.clear()
        self._blocked.clear()
        streams, self._streams = self._streams, {}
        for stream in streams.values():
            stream.queue.clear()
            stream.lost()
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
        while end - begin >= f.HEAD_SIZE:
            high, low, kind, flags, stream_id = f.unpack_head(data, begin)
            size = high << 8 | low
            body = begin + f.HEAD_SIZE
            if size > FRAME_SIZE:
                raise f.ConnectionFault(f.FRAME_SIZE_ERROR, "a frame is too large")
            if body + size > end:
                self._needed = f.HEAD_SIZE + size
                break
            after = body + size
            try:
                if self._expected is not None and kind != self._expected:
                    raise f.ConnectionFault(f.PROTOCOL_ERROR, "another frame is expected here")
                if kind == f.DATA and not flags & f.PADDED:
                    self._on_data(stream_id & f.LARGEST_STREAM, data[body:after], size, flags)
                elif kind == f.HEADERS and flags & 0x2C == f.END_HEADERS:
                    self._on_block(stream_id & f.LARGEST_STREAM, data[body:after], flags)
                elif kind <= f.CONTINUATION:
                    self._on_other(f.parse(data[begin:after]), kind, flags)
                else:
                    self._pay(1)
            except f.StreamFault as fault:
                self._break(fault)
            begin = after
            if self._closing:
                return
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
        elif stream.credit >= _HALF_STREAM and stream.is_hungry():
            self.give_credit(stream)
        stream.since = self._heard
        stream.receive(data)

    def give_credit(self, stream: Stream) -> None:
        """Lets the client send more on a stream."""
        if stream.credit and not stream.ended:
            self.send(f.window_update(stream.id, stream.credit))
            stream.credit = 0

    def _check_length(self, stream: Stream) -> None:
        if stream.head.length not in {-1, stream.received}:
            raise f.StreamFault(stream.id, f.PROTOCOL_ERROR)

    def _on_late_data(self, stream: Stream | None, stream_id: int, flags: int) -> None:
        """Data where none may come, or of a stream that we have answered already."""
        if stream_id in self._left_behind:
            if flags & f.END_STREAM:
                del self._left_behind[stream_id]
        elif stream is not None:
            raise f.StreamFault(stream_id, f.STREAM_CLOSED)
        elif stream_id == 0 or stream_id > self._last:
            raise f.ConnectionFault(f.PROTOCOL_ERROR, "data on a stream that was not opened")
        else:
            raise f.ConnectionFault(f.STREAM_CLOSED, "data on a stream that is closed")

    def _on_block(self, stream_id: int, block: bytes, flags: int) -> None:
        """A whole header block: a request, or trailers."""
        if stream_id <= self._last:
            self._on_trailers(stream_id, block, flags)
            return
        if not stream_id & 1:
            raise f.ConnectionFault(f.PROTOCOL_ERROR, "a stream of a client has an odd number")
        self._last = stream_id
        head = self._heads.read(block, stream_id)
        if self._final is not None:
            self._remember(stream_id)  # the client knows that it is not answered
            return
        if len(self._streams) >= MAX_STREAMS:
            self._pay(_RESET_COST)
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

    def _on_other(self, frame: Any, kind: int, flags: int) -> None:
        stream_id = frame.stream_id
        if kind == f.DATA:
            self._on_data(stream_id, frame.data, frame.flow_controlled_length, flags)
        elif kind == f.HEADERS:
            self._on_headers(frame, flags)
        elif kind == f.CONTINUATION:
            self._on_continuation(frame, flags)
        elif kind == f.SETTINGS:
            self._on_settings(frame)
        elif kind == f.WINDOW_UPDATE:
            self._on_window_update(stream_id, frame.window_increment)
        elif kind == f.PING:
            self._on_ping(frame)
        elif kind == f.RST_STREAM:
            self._on_reset(stream_id)
        elif kind == f.PUSH_PROMISE:
            raise f.ConnectionFault(f.PROTOCOL_ERROR, "clients push nothing")
        elif kind == f.PRIORITY:
            self._pay(1)
            if frame.depends_on == stream_id:
                raise f.StreamFault(stream_id, f.PROTOCOL_ERROR)
        # GOAWAY: the client opens no more streams; it closes the connection when it is done.

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
        self._waiting_since = self.hub.clock.now

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
            self._expected, self._waiting_since = None, inf
            block, self._block = b"".join(self._block), []
            self._on_block(self._block_of, block, self._block_flags)

    def _on_settings(self, frame: Any) -> None:
        self._pay(1)
        if self._expected is not None:
            if "ACK" in frame.flags:
                raise f.ConnectionFault(f.PROTOCOL_ERROR, "settings have to come first")
            self._expected = None
        if "ACK" not in frame.flags:
            self._set_peer(frame.settings, self._streams)
            self.send(f.frame(f.SETTINGS, f.ACK, 0))

    def _on_window_update(self, stream_id: int, increment: int) -> None:
        if stream_id == 0:
            self._open_window(None, increment)
            return
        stream = self._streams.get(stream_id)
        if stream is not None:
            self._open_window(stream, increment)
        elif stream_id > self._last:
            raise f.ConnectionFault(f.PROTOCOL_ERROR, "a window of a stream that was not opened")
        self._pay(1)

    def _on_ping(self, frame: Any) -> None:
        if "ACK" not in frame.flags:
            self._pay(1)
            self.send(f.frame(f.PING, f.ACK, 0, frame.opaque_data))
        elif self._leaving and self._final is None and frame.opaque_data == _PING:
            self._leave()

    def _on_reset(self, stream_id: int) -> None:
        """The client takes back a request: what has not begun is not computed."""
        if stream_id == 0 or stream_id > self._last:
            raise f.ConnectionFault(f.PROTOCOL_ERROR, "a reset of a stream that was not opened")
        self._pay(_RESET_COST)
        self._left_behind.pop(stream_id, None)
        stream = self._streams.get(stream_id)
        if stream is not None:
            self._drop(stream)

    def _pay(self, price: int) -> None:
        """Takes from the purse of one who makes us work for nothing."""
        self._purse -= price
        if self._purse < 0:
            raise f.ConnectionFault(f.ENHANCE_YOUR_CALM, "too many frames that ask for nothing")

    # The ends of streams

    def forget(self, stream: Stream) -> None:
        """Nothing more is known of a stream."""
        self._streams.pop(stream.id, None)
        self._purse = min(PURSE, self._purse + _ANSWER_WORTH)
        if not self._streams and (self._final is not None or self._eof):
            self._close_if_done()

    def leave_behind(self, stream: Stream) -> None:
        """The answer came before the request was whole: the rest of it is not wanted."""
        self.send(f.reset(stream.id, f.NO_ERROR))
        self._remember(stream.id)
        self.forget(stream)

    def _remember(self, stream_id: int) -> None:
        self._left_behind[stream_id] = None
        if len(self._left_behind) > _MOST_LEFT_BEHIND:
            del self._left_behind[next(iter(self._left_behind))]

    def _drop(self, stream: Stream) -> None:
        """Ends a stream that nobody waits for."""
        self._drop_queue(stream)
        stream.lost()
        self.forget(stream)

    def abort_stream(self, stream: Stream, code: int) -> None:
        """Ends a stream whose answer cannot be given as it should be."""
        self._drop_queue(stream)
        self.send(f.reset(stream.id, code))
        if not stream.ended:
            self._remember(stream.id)
        self.forget(stream)

    def _break(self, fault: f.StreamFault) -> None:
        """Tells the client what is wrong with one stream; the others go on."""
        self._pay(_RESET_COST)
        self.send(f.reset(fault.stream_id, fault.code))
        self._remember(fault.stream_id)
        stream = self._streams.get(fault.stream_id)
        if stream is not None:
            self._drop(stream)

    # The end of it all

    def abort(self) -> None:
        """Ends the connection at once, whatever is going on."""
        self._transport.abort()

    def end_if_idle(self) -> None:
        """The grace of a drain is over: streams that would never end do so, and idle clients go."""
        self._announce()
        for stream in tuple(self._streams.values()):
            stream.wind_down()
        if self._final is None:
            self._leave()

    def expire(self) -> None:
        """Looks after what is overdue; called at every tick of the clock."""
        if self._closing:
            self._transport.abort()
            return
        now = self.hub.clock.now
        self._purse = min(PURSE, self._purse + int((now - self._ticked) * _PURSE_PER_SECOND) + 1)
        self._ticked = now
        if self.hub.draining:
            self._announce()
        for stream in tuple(self._streams.values()):
            self._look_after(stream, now)
        if self._is_late(now):
            self._end(f.NO_ERROR, "nothing came in time")
        elif not self._streams and self._is_idle(now):
            self._announce()
        elif self._streams and now - self._heard > self._limits.keep_alive_timeout_s:
            self._ask(now)

    def _look_after(self, stream: Stream, now: float) -> None:
        stream.tick()
        if stream.queue:
            if now - stream.since > self._limits.write_timeout_s:
                stream.lost()
                self.abort_stream(stream, f.CANCEL)
        elif not stream.ended and now - stream.since > self._limits.body_timeout_s:
            stream.overdue()

    def _is_late(self, now: float) -> bool:
        """Whether the client owes the begin of the connection, the rest of a head, or an end."""
        patience_s = self._limits.header_timeout_s
        if self._leaving and not self._streams:
            return now - self._announced > _GRACE_S
        begun = self._born if self._expected == f.SETTINGS else self._waiting_since
        return not self._leaving and now - begun > patience_s

    def _is_idle(self, now: float) -> bool:
        return now - self._heard > self._limits.keep_alive_timeout_s

    def _ask(self, now: float) -> None:
        """Asks a silent client that waits for something whether it is still there."""
        if self._asked < self._heard or self._asked == inf:
            self._asked = now
            self.send(f.frame(f.PING, 0, 0, _PING))
        elif now - self._asked > self._limits.write_timeout_s:
            self._transport.abort()

    def _announce(self) -> None:
        """The first step of leaving: no new requests, please; those on their way are answered."""
        if not self._leaving:
            self._leaving = True
            self._announced = self.hub.clock.now
            self.send(f.go_away(f.LARGEST_STREAM, f.NO_ERROR, "the server ends this connection"))
            self.send(f.frame(f.PING, 0, 0, _PING))

    def _leave(self) -> None:
        """The second step: the client has heard of the first."""
        self._final = self._last
        self.send(f.go_away(self._final, f.NO_ERROR))
        self._close_if_done()

    def _close_if_done(self) -> None:
        if not self._streams and not self._closing:
            self._close()

    def _end(self, code: int, reason: str) -> None:
        """Ends the connection with a reason."""
        if self._closing:
            return
        if code != f.NO_ERROR:
            logger.debug("An HTTP/2 connection ends with %d: %s", code, reason)
        self.send(f.go_away(self._last if self._final is None else self._final, code, reason))
        streams, self._streams = self._streams, {}
        for stream in streams.values():
            stream.queue.clear()
            stream.lost()
        self._blocked.clear()
        self._close()

    def _close(self) -> None:
        self._closing = True
        self.flush()
        self.deadline = self.hub.clock.now + self._limits.write_timeout_s
        self._transport.close()


def _address(transport: asyncio.Transport) -> str:
    name = transport.get_extra_info("peername")
    return str(name[0]) if isinstance(name, tuple) else ""

"""The sending half of an HTTP/2 connection: in order, and no more than the peer allows.

An answer that fits into the windows, as nearly all of gRPC do, is written at once. Others wait in
their streams, and take turns when the peer opens its windows.
"""

from __future__ import annotations

import asyncio
from collections import deque
from math import inf
from typing import TYPE_CHECKING

from serve.server.grpc import frames as f

if TYPE_CHECKING:
    from serve.server.grpc.streams import Stream
    from serve.server.hub import Hub

PURSE = 10_000
"""What a client may spend on frames that ask for nothing; see `GrpcConnection`."""

_MOST_AT_ONCE = 256 * 1024
_FRAME_WORTH = 2
_NO_TABLE = b"\x20"
"""The table of our encoder is empty, whatever the peer allows: said once where it allows less."""


class Sending(asyncio.Protocol):
    """Frames to one client; the reading half is `serve.server.grpc.connection.GrpcConnection`.

    Attributes:
        hub: What all connections share.
        blocked_since: In the clock's time: since when the client has taken nothing that waits for
            it; infinite where nothing waits.
    """

    def __init__(self, hub: Hub, transport: asyncio.Transport) -> None:
        self.hub = hub
        self.blocked_since = inf
        self._transport = transport
        self._soon = asyncio.get_running_loop().call_soon
        self._out: list[bytes | memoryview] = []
        self._flushing = False
        self._reading = self._writable = True
        self._closing = False
        self._window = self._first_window = f.DEFAULT_WINDOW
        self._most = f.DEFAULT_FRAME_SIZE
        self._prefix = b""
        self._blocked: deque[Stream] = deque()
        self._purse = PURSE

    # Frames to the transport

    def send(self, data: bytes | memoryview) -> None:
        """Writes in this turn of the loop, together with all that comes until then."""
        self._out.append(data)
        if not self._flushing:
            self._flushing = True
            self._soon(self.flush)

    def flush(self) -> None:
        """Hands over what was sent."""
        self._flushing = False
        if self._out:
            out, self._out = self._out, []
            if not self._transport.is_closing():
                self._transport.write(b"".join(out))

    def pause_writing(self) -> None:
        """The client takes nothing: no more answers for now, and no more reading."""
        self._writable = False
        self.blocked_since = self.hub.clock.now
        if self._reading and not self._closing:
            self._reading = False
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        """The client takes data again."""
        self._writable = True
        self.blocked_since = inf
        self._pump()
        if not self._reading and self._writable and not self._closing:
            self._reading = True
            self._transport.resume_reading()

    # Answers

    def answer(self, stream: Stream, block: bytes, body: bytes, trailers: bytes) -> None:
        """Sends a whole answer: head, body, and trailers where there are any.

        Args:
            stream: Of the request.
            block: The head's header block.
            body: May be empty.
            trailers: Their header block; empty for none.
        """
        size, begin, rest = len(body), len(block), len(trailers)
        if (
            size <= self._window
            and size <= stream.window
            and size <= self._most
            and begin <= self._most
            and rest <= self._most
            and self._writable
            and not self._prefix
        ):
            self._window -= size
            pack, stream_id = f.pack_head, stream.id
            parts = [pack(begin >> 8, begin & 255, f.HEADERS, f.END_HEADERS, stream_id), block]
            if size or not rest:
                parts += (pack(size >> 8, size & 255, f.DATA, not rest, stream_id), body)
            if rest:
                flags = f.END_HEADERS | f.END_STREAM
                parts += (pack(rest >> 8, rest & 255, f.HEADERS, flags, stream_id), trailers)
            self.send(b"".join(parts))
            self.ended(stream)
        else:
            self.start(stream, block)
            self.push(stream, body)
            self.finish(stream, trailers)

    def start(self, stream: Stream, block: bytes, data: bytes = b"") -> None:
        """Sends the head of an answer whose body follows, with the first part of that if any."""
        head = self._headers(stream, block, 0)
        self._enqueue(stream, *([head, memoryview(data)] if data else [head]))

    def push(self, stream: Stream, data: bytes) -> None:
        """Sends a part of a body."""
        if data:
            self._enqueue(stream, memoryview(data))

    def finish(self, stream: Stream, trailers: bytes = b"") -> None:
        """Sends the end of an answer."""
        stream.closing = True
        if trailers:
            self._enqueue(stream, self._headers(stream, trailers, f.END_STREAM))
        else:
            self._enqueue(stream, f.frame(f.DATA, f.END_STREAM, stream.id))

    def ended(self, stream: Stream) -> None:
        """The answer is out."""
        if stream.ended:
            self.forget(stream)
        else:
            self.leave_behind(stream)

    def forget(self, stream: Stream) -> None:
        """Nothing more is known of a stream."""
        raise NotImplementedError

    def leave_behind(self, stream: Stream) -> None:
        """A stream whose client may still be sending has been answered."""
        raise NotImplementedError

    def _headers(self, stream: Stream, block: bytes, flags: int) -> bytes:
        if self._prefix:
            block, self._prefix = self._prefix + block, b""
        return f.headers(stream.id, block, flags, self._most)

    # What waits

    def _enqueue(self, stream: Stream, *items: bytes | memoryview) -> None:
        """Sends frames (bytes) and data (memoryviews) of a stream in their order."""
        waiting = bool(stream.queue)
        stream.queue.extend(items)
        if not waiting:
            stream.since = self.hub.clock.now
            self._blocked.append(stream)
            # Beyond what stands in line already, it is sent at once.
            self._pump()

    def _pump(self) -> None:
        """Sends what the windows allow, stream by stream, a part of each in its turn."""
        stuck = 0
        blocked = self._blocked
        while blocked and stuck < len(blocked) and self._writable:
            stream = blocked.popleft()
            sent = self._send_some(stream)
            if stream.queue:
                blocked.append(stream)
                stuck = 0 if sent else stuck + 1
            elif stream.closing:
                self.ended(stream)
                stuck = 0
            else:
                stuck = 0
                stream.drained()
            if sent:
                self.flush()
        if not blocked:
            self.blocked_since = inf if self._writable else self.blocked_since
        elif stuck == 0 or self.blocked_since == inf:
            self.blocked_since = self.hub.clock.now

    def _send_some(self, stream: Stream) -> bool:
        """Whether there was anything that may be sent of a stream."""
        queue, left = stream.queue, _MOST_AT_ONCE
        while queue and left > 0:
            item = queue[0]
            if isinstance(item, bytes):
                self.send(item)
                queue.popleft()
                left -= len(item)
                continue
            size = min(len(item), self._most, self._window, stream.window)
            if size <= 0:
                break
            self._send_data(stream, item, size)
            left -= size
        if left < _MOST_AT_ONCE:
            stream.since = self.hub.clock.now
            return True
        return False

    def _send_data(self, stream: Stream, item: memoryview, size: int) -> None:
        self._window -= size
        stream.window -= size
        self._purse += _FRAME_WORTH  # for the window updates that it may bring
        head = f.pack_head(size >> 8, size & 0xFF, f.DATA, 0, stream.id)
        self.send(head)
        if size == len(item):
            stream.queue.popleft()
            self.send(item)
        else:
            stream.queue[0] = item[size:]
            self.send(item[:size])

    def _drop_queue(self, stream: Stream) -> None:
        """What waits for a stream that has ended goes nowhere."""
        if stream.queue:
            stream.queue.clear()
            self._blocked.remove(stream)
            if not self._blocked and self._writable:
                self.blocked_since = inf

    # What the peer allows

    def _open_window(self, stream: Stream | None, increment: int) -> None:
        """A WINDOW_UPDATE for a stream, or for the connection (None)."""
        if stream is None:
            self._window += increment
            if self._window > f.LARGEST_WINDOW:
                raise f.ConnectionFault(f.FLOW_CONTROL_ERROR, "the window is too large")
        else:
            stream.window += increment
            if stream.window > f.LARGEST_WINDOW:
                raise f.StreamFault(stream.id, f.FLOW_CONTROL_ERROR)
        if self._blocked:
            self._pump()

    def _set_peer(self, values: dict[int, int], streams: dict[int, Stream]) -> None:
        """The peer's SETTINGS, which are acknowledged."""
        size = values.get(f.MAX_FRAME_SIZE, self._most)
        window = values.get(f.INITIAL_WINDOW_SIZE, self._first_window)
        if not f.DEFAULT_FRAME_SIZE <= size <= f.LARGEST_FRAME_SIZE:
            raise f.ConnectionFault(f.PROTOCOL_ERROR, "MAX_FRAME_SIZE is out of range")
        if window > f.LARGEST_WINDOW:
            raise f.ConnectionFault(f.FLOW_CONTROL_ERROR, "INITIAL_WINDOW_SIZE is too large")
        if values.get(f.ENABLE_PUSH, 0) > 1:
            raise f.ConnectionFault(f.PROTOCOL_ERROR, "ENABLE_PUSH is out of range")
        if values.get(f.HEADER_TABLE_SIZE, f.DEFAULT_TABLE) < f.DEFAULT_TABLE:
            self._prefix = _NO_TABLE
        self._most = size
        change, self._first_window = window - self._first_window, window
        for stream in tuple(streams.values()) if change else ():
            stream.window += change
            if stream.window > f.LARGEST_WINDOW:
                raise f.ConnectionFault(f.FLOW_CONTROL_ERROR, "a stream's window is too large")
        # What the new windows allow goes out behind the word that they are known: before it, the
        # peer holds us to the old ones.
        self.send(f.frame(f.SETTINGS, f.ACK, 0))
        if self._blocked:
            self._pump()

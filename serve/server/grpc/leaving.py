"""How streams and connections end: answered, taken back, overdue, or because the server leaves."""

from __future__ import annotations

import logging
from math import inf
from typing import TYPE_CHECKING

from serve.server.grpc import frames as f
from serve.server.grpc.windows import PURSE, Sending

if TYPE_CHECKING:
    import asyncio

    from serve.server.grpc.streams import Stream
    from serve.server.hub import Hub

logger = logging.getLogger(__name__)

RESET_COST = 20
_ANSWER_WORTH = 5
_PURSE_PER_SECOND = 1_000
_MOST_LEFT_BEHIND = 1024
_PING = b"fieldpst"
_GRACE_S = 1.0
_GREETING_S = 1.0
_LINGER_S = 2.0


class Leaving(Sending):
    """The part of a connection that knows its streams and its times.

    A connection leaves in two steps, so that no request is lost: it announces that it goes, and
    takes no new streams once the client has heard of it.

    Attributes:
        deadline: In the clock's time: when `expire` is due. Each tick of the clock is, until the
            connection is closed.
    """

    def __init__(self, hub: Hub, transport: asyncio.Transport) -> None:
        super().__init__(hub, transport)
        self.deadline = -inf
        self._limits = hub.settings
        self._streams: dict[int, Stream] = {}
        # What may still come on streams that have ended is passed over, or, where the client itself
        # has taken the request back (True), told to be late; neither hurts other streams.
        self._left_behind: dict[int, bool] = {}
        self._last = 0
        # The last stream that is answered, once the client has been told so.
        self._final: int | None = None
        self._eof = False
        self._born = self._heard = self._ticked = hub.clock.now
        self._asked = self._announced = inf
        # Since when the rest of the client's first frames, or of a head, is awaited.
        self._awaiting = self._born

    def _pay(self, price: int) -> None:
        """Takes from the purse of one who makes us work for nothing."""
        self._purse -= price
        if self._purse < 0:
            raise f.ConnectionFault(f.ENHANCE_YOUR_CALM, "too many frames that ask for nothing")

    # Streams

    def forget(self, stream: Stream) -> None:
        """Nothing more is known of a stream."""
        self._streams.pop(stream.id, None)
        if self._purse < PURSE:
            self._purse += _ANSWER_WORTH
        if not self._streams and (self._final is not None or self._eof):
            self._close(answered=True)

    def leave_behind(self, stream: Stream) -> None:
        """The answer came before the request was whole: the rest of it is not wanted."""
        self.send(f.reset(stream.id, f.NO_ERROR))
        self._remember(stream.id)
        self.forget(stream)

    def abort_stream(self, stream: Stream, code: int) -> None:
        """Ends a stream whose answer cannot be given as it should be."""
        self._drop_queue(stream)
        self.send(f.reset(stream.id, code))
        if not stream.ended:
            self._remember(stream.id)
        self.forget(stream)

    def _remember(self, stream_id: int, *, taken_back: bool = False) -> None:
        """The client may still send on this stream, and that is no fault of the connection."""
        self._left_behind[stream_id] = taken_back
        if len(self._left_behind) > _MOST_LEFT_BEHIND:
            del self._left_behind[next(iter(self._left_behind))]

    def _drop(self, stream: Stream) -> None:
        """Ends a stream that nobody waits for."""
        self._drop_queue(stream)
        stream.lost()
        self.forget(stream)

    def _break(self, fault: f.StreamFault) -> None:
        """Tells the client what is wrong with one stream; the others go on."""
        self._pay(RESET_COST)
        self.send(f.reset(fault.stream_id, fault.code))
        self._remember(fault.stream_id)
        stream = self._streams.get(fault.stream_id)
        if stream is not None:
            self._drop(stream)

    # Times

    def expire(self) -> None:
        """Looks after what is overdue; called at every tick of the clock."""
        if self._closing:
            self._transport.abort()
            return
        now = self.hub.clock.now
        self._purse = min(PURSE, self._purse + int((now - self._ticked) * _PURSE_PER_SECOND) + 1)
        self._ticked = now
        # grpcio, told to go in its first moment, waits for twenty seconds before it goes elsewhere.
        if self.hub.draining and (self._last or now - self._born > _GREETING_S):
            self._announce()
        for stream in tuple(self._streams.values()):
            self._look_after(stream, now)
        if self._is_late(now):
            self._end(f.NO_ERROR, "nothing came in time")
        elif now - self._heard > self._limits.keep_alive_timeout_s:
            if self._streams:
                self._ask(now)
            else:
                self._announce()

    def _look_after(self, stream: Stream, now: float) -> None:
        stream.tick()
        if stream.queue:
            # Who sends no more cannot open a window either.
            if self._eof or now - stream.since > self._limits.write_timeout_s:
                stream.lost()
                self.abort_stream(stream, f.CANCEL)
        elif not stream.ended and not stream.closing:
            stream.wait(now - self._limits.body_timeout_s)

    def _is_late(self, now: float) -> bool:
        """Whether the client owes the begin of the connection, the rest of a head, or an end."""
        if self._announced != inf:
            return not self._streams and now - self._announced > _GRACE_S
        return now - self._awaiting > self._limits.header_timeout_s

    def _ask(self, now: float) -> None:
        """Asks a silent client that waits for something whether it is still there."""
        if self._asked == inf:
            self._asked = now
            self.send(f.frame(f.PING, 0, 0, _PING))
        elif now - self._asked > self._limits.write_timeout_s:
            self._transport.abort()

    # The end of it all

    def abort(self) -> None:
        """Ends the connection at once, whatever is going on."""
        self._transport.abort()

    def end_if_idle(self) -> None:
        """The grace of a drain is over: streams that would never end do so, and idle clients go."""
        self._announce()
        for stream in tuple(self._streams.values()):
            stream.wind_down()
        self._leave()

    def _announce(self) -> None:
        """The first step of leaving: no new requests, please; those on their way are answered."""
        if self._announced == inf:
            self._announced = self.hub.clock.now
            self.send(f.go_away(f.LARGEST_STREAM, f.NO_ERROR, "the server ends this connection"))
            self.send(f.frame(f.PING, 0, 0, _PING))

    def _heard_back(self, data: bytes) -> None:
        """The client has answered a ping: it knows whatever was sent before."""
        if self._announced != inf and data == _PING:
            self._leave()

    def _leave(self) -> None:
        """The second step: streams over the last one are not answered."""
        if self._final is None and not self._closing:
            self._final = self._last
            self.send(f.go_away(self._final, f.NO_ERROR))
            if not self._streams:
                self._close()

    def _end(self, code: int, reason: str) -> None:
        """Ends the connection with a reason."""
        if self._closing:
            return
        if code != f.NO_ERROR:
            logger.debug("An HTTP/2 connection ends with %d: %s", code, reason)
        self.send(f.go_away(self._last if self._final is None else self._final, code, reason))
        self._lose_streams()
        self._close(linger=not self._eof)

    def _lose_streams(self) -> None:
        streams, self._streams = self._streams, {}
        self._blocked.clear()
        for stream in streams.values():
            stream.queue.clear()
            stream.lost()

    def _close(self, *, linger: bool = False, answered: bool = False) -> None:
        """Sends what is written, then ends.

        A client that is still sending would get a reset, and lose our last words with it. So with
        `linger` only our half is closed at first, and what comes is dropped. One that was
        `answered` just now may need its time to take that.
        """
        if self._closing:
            return
        self._closing = True
        self.flush()
        if linger and self._transport.can_write_eof():
            self.deadline = self.hub.clock.now + _LINGER_S
            self._transport.write_eof()
            if not self._reading:
                self._reading = True
                self._transport.resume_reading()
        else:
            # Under TLS the end waits for the client's own word, which may be long in coming.
            owes = answered or self._transport.get_write_buffer_size()
            patience_s = self._limits.write_timeout_s if owes else _LINGER_S
            self.deadline = self.hub.clock.now + patience_s
            self._transport.close()

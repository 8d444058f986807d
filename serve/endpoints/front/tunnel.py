"""HTTP/2 (gRPC) through a front: a whole connection goes to one deployment.

Requests on it are not looked into: the weights decide once, rules and stickiness cannot be applied.
Where the deployment loses its share, or the front leaves, a GOAWAY frame is put between two frames
of the deployment: the client ends what it has begun here, and makes a new connection for the rest.
"""

from __future__ import annotations

import asyncio
import struct
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from serve.endpoints.front.front import Front

_HEAD_BYTES = 9
_GOAWAY = 7
_LAST_STREAM = 0x7FFF_FFFF


def goaway() -> bytes:
    """A frame that says: begin nothing more here; what has begun goes on."""
    payload = struct.pack(">II", _LAST_STREAM, 0)
    return struct.pack(">BHBBI", 0, len(payload), _GOAWAY, 0, 0) + payload


class Frames:
    """Follows the frames of one direction, to know where one ends.

    Attributes:
        begun: A frame has ended: the first one, which has to be the settings, is over.
    """

    def __init__(self) -> None:
        self.begun = False
        self._head = b""
        self._left = 0

    def boundary(self, data: bytes) -> int | None:
        """Where the last frame within this piece of data ends; None for none, 0 before it all."""
        place, found = 0, 0 if self.begun and self.is_between else None
        while place < len(data):
            if self._left:
                step = min(self._left, len(data) - place)
                self._left -= step
                place += step
            else:
                part = data[place : place + _HEAD_BYTES - len(self._head)]
                self._head += part
                place += len(part)
                if len(self._head) < _HEAD_BYTES:
                    break
                self._left = int.from_bytes(self._head[:3], "big")
                self._head = b""
            if self.is_between:
                found = place
                self.begun = True
        return found

    @property
    def is_between(self) -> bool:
        """Whether the last frame has ended and the next one has not begun."""
        return not self._left and not self._head


class Tunnel(asyncio.Protocol):
    """A client's HTTP/2 connection; the protocol of its transport from now on.

    Args:
        front: What all clients share.
        transport: The client's.
        data: What it has sent already.

    Attributes:
        deployment: Where it leads.
    """

    def __init__(self, front: Front, transport: asyncio.Transport, data: bytes) -> None:
        self.deployment = ""
        self._front = front
        self._transport = transport
        self._early = [data]
        self._far: _FarEnd | None = None
        self._closed = False
        front.dig(self)
        transport.set_protocol(self)
        transport.pause_reading()
        self._task = asyncio.ensure_future(self._open())

    async def _open(self) -> None:
        tried: set[str] = set()
        loop, front = asyncio.get_running_loop(), self._front
        while True:
            name = front.router.choose(
                (),
                front.draw,
                without=tried,
                prefer=lambda each: front.backends[each].seems_up(front.now()),
            )
            if name is None:
                front.refused(503)
                self.close()
                return
            backend = front.backends[name]
            try:
                async with asyncio.timeout(front.settings.connect_timeout_s):
                    _, far = await loop.create_connection(
                        lambda: _FarEnd(self), backend.host, backend.port, ssl=backend.tls
                    )
            except (OSError, ValueError):
                backend.failed(front.now())
                backend.counts.failed("connect")
                tried.add(name)
                continue
            break
        self.deployment, self._far = name, far
        backend.counts.tunnels += 1
        far.write(b"".join(self._early))
        if not self._closed:
            self._transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        """From the client to the deployment."""
        if self._far is None:
            self._early.append(data)
        else:
            self._far.write(data)

    def eof_received(self) -> bool:
        """The client has sent everything."""
        if self._far is not None:
            self._far.end()
        return True

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the same to us
        """The client has gone."""
        self._closed = True
        self._task.cancel()
        if self._far is not None:
            self._far.close()
        self._front.fill(self)

    def pause_writing(self) -> None:
        """The client reads slowly: the deployment has to wait."""
        if self._far is not None:
            self._far.hold(hold=True)

    def resume_writing(self) -> None:
        """It reads again."""
        if self._far is not None:
            self._far.hold(hold=False)

    def pass_back(self, data: bytes) -> None:
        """From the deployment to the client."""
        if not self._closed:
            self._transport.write(data)

    def hold(self, *, hold: bool) -> None:
        """The deployment takes no more for now, or does again."""
        if not self._closed:
            if hold:
                self._transport.pause_reading()
            else:
                self._transport.resume_reading()

    def leave(self) -> None:
        """Asks the client to go elsewhere with its next request."""
        if self._far is None:
            self.close()
        else:
            self._far.leave()

    def close(self) -> None:
        """Ends it at once, when what was written is out."""
        if not self._closed:
            self._transport.close()


class _FarEnd(asyncio.Protocol):
    """The deployment's side of a tunnel."""

    def __init__(self, near: Tunnel) -> None:
        self._near = near
        self._transport: asyncio.Transport
        self._frames = Frames()
        self._leaving = self._closed = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begins."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """From the deployment to the client, with a GOAWAY in between where that is due."""
        boundary = self._frames.boundary(data)
        if self._leaving and boundary is not None:
            self._leaving = False
            data = data[:boundary] + goaway() + data[boundary:]
        self._near.pass_back(data)

    def eof_received(self) -> bool:
        """The deployment has sent everything."""
        self._near.close()
        return False

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the same to us
        """The deployment has gone."""
        self._closed = True
        self._near.close()

    def pause_writing(self) -> None:
        """It takes no more for now."""
        self._near.hold(hold=True)

    def resume_writing(self) -> None:
        """It does again."""
        self._near.hold(hold=False)

    def write(self, data: bytes) -> None:
        """Sends it on."""
        if not self._closed:
            self._transport.write(data)

    def end(self) -> None:
        """The client sends no more."""
        if not self._closed and self._transport.can_write_eof():
            self._transport.write_eof()

    def hold(self, *, hold: bool) -> None:
        """The client takes no more for now, or does again."""
        if not self._closed:
            if hold:
                self._transport.pause_reading()
            else:
                self._transport.resume_reading()

    def leave(self) -> None:
        """Puts a GOAWAY at the next end of a frame, which may be now."""
        if self._frames.begun and self._frames.is_between:
            self._near.pass_back(goaway())
        else:
            self._leaving = True

    def close(self) -> None:
        """The client has gone."""
        if not self._closed:
            self._transport.close()

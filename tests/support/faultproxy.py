"""A TCP proxy that treats what passes badly: it delays, thins, cuts off, freezes and resets.

It needs no privileges. Faults may be changed while connections stand; they hold for all of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass
from typing import Any

_CHUNK = 16 * 1024
_TICK_S = 0.02


@dataclass
class Faults:
    """What is done to connections.

    Attributes:
        delay_s: Everything arrives so much later.
        bytes_s: At most so many each way and connection; 0 for all.
        slice_bytes: Arrives in pieces of at most this size; 0 for as it comes.
        silent_down: Nothing reaches the client any more, and nobody is told: half open.
        silent_up: Nothing reaches the server any more.
        refuse: New connections are reset at once.
        end_after: A connection is reset when so many bytes have come down; 0 for never.
        close_after: A connection ends in peace when so many bytes have come down; 0 for never.
    """

    delay_s: float = 0.0
    bytes_s: int = 0
    slice_bytes: int = 0
    silent_down: bool = False
    silent_up: bool = False
    refuse: bool = False
    end_after: int = 0
    close_after: int = 0


class FaultProxy:
    """Listens on a port of the loopback, and passes on to another.

    Args:
        port: Of the server.
        host: Where it is.

    Attributes:
        faults: May be changed at any time.
        port: Where it listens.
        passed: Bytes that came down, over all connections.
        connections: How many there were.
    """

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        self._target = (host, port)
        self.faults = Faults()
        self.passed = 0
        self.connections = 0
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._open: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._loop.run_forever, name="faultproxy")

    def start(self) -> None:
        """Begins to listen."""
        self._thread.start()
        self._call(self._listen())

    def close(self) -> None:
        """Ends every connection, and listens no more."""
        self._call(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def reset(self) -> None:
        """Resets all connections that stand now."""
        self._call(self._reset())

    def _call(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(20)

    # -- on the loop

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._came, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _end(self) -> None:
        self._server.close()
        await self._reset()

    async def _reset(self) -> None:
        for task in self._open:
            task.cancel()
        if self._open:
            await asyncio.wait(self._open)

    async def _came(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        try:
            await self._serve(reader, writer)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self._open.discard(task)
            _abort(writer)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.faults.refuse:
            return
        server_reader, server_writer = await asyncio.open_connection(*self._target)
        ways = [
            asyncio.ensure_future(self._pass(reader, server_writer, down=False)),
            asyncio.ensure_future(self._pass(server_reader, writer, down=True)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            if ways[1].done() and not ways[1].exception():
                writer.close()
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            _abort(server_writer)

    async def _pass(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, down: bool
    ) -> None:
        count = 0
        while data := await reader.read(self.faults.slice_bytes or _CHUNK):
            await self._wait(len(data), down=down)
            count += len(data)
            end = self.faults.end_after or self.faults.close_after
            if down and end and count >= end:
                writer.write(data[: len(data) - (count - end)])
                await writer.drain()
                if self.faults.end_after:
                    raise ConnectionResetError
                return
            writer.write(data)
            await writer.drain()
            if down:
                self.passed += len(data)

    async def _wait(self, count: int, *, down: bool) -> None:
        # Faults are changed by another thread, at any time: there is nothing to wait for but time.
        while self.faults.silent_down if down else self.faults.silent_up:  # noqa: ASYNC110
            await asyncio.sleep(_TICK_S)
        wait_s = self.faults.delay_s
        if self.faults.bytes_s:
            wait_s += count / self.faults.bytes_s
        if wait_s:
            await asyncio.sleep(wait_s)


def _abort(writer: asyncio.StreamWriter) -> None:
    """A reset, unless it is closed in peace already."""
    if writer.is_closing():
        return
    sock = writer.get_extra_info("socket")
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


@contextlib.contextmanager
def proxy(port: int, host: str = "127.0.0.1") -> Iterator[FaultProxy]:
    """A proxy before a port, until the end of the block."""
    made = FaultProxy(port, host)
    made.start()
    try:
        yield made
    finally:
        made.close()

"""Answers 503 on a listening socket whose workers were given up, so that clients do not hang."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    import socket

RETRY_AFTER_S = 30
_READ_TIMEOUT_S = 5.0
_MAX_HEAD_BYTES = 65_536


class Unavailable:
    """Accepts connections in the workers' place, reads a request, answers 503 and closes.

    Args:
        listener: The workers' socket, which stays open when this ends.
        reason: Why no worker answers, in one sentence.
    """

    def __init__(self, listener: socket.socket, reason: str) -> None:
        self._answer = _answer(reason)
        self._connections: set[asyncio.Task[None]] = set()
        self._accepting = asyncio.ensure_future(self._accept(listener.dup()))

    def end(self) -> None:
        """Stops accepting; what it has accepted is still answered."""
        self._accepting.cancel()

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        with listener:
            listener.setblocking(False)
            while True:
                try:
                    connection, _ = await loop.sock_accept(listener)
                except OSError:  # no descriptors left, or the client went
                    await asyncio.sleep(0.1)
                    continue
                task = asyncio.ensure_future(self._serve(connection))
                self._connections.add(task)
                task.add_done_callback(self._connections.discard)

    async def _serve(self, connection: socket.socket) -> None:
        reader, writer = await asyncio.open_connection(sock=connection, limit=_MAX_HEAD_BYTES)
        try:
            with contextlib.suppress(
                OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError
            ):
                async with asyncio.timeout(_READ_TIMEOUT_S):
                    await reader.readuntil(b"\r\n\r\n")
                    writer.write(self._answer)
                    await writer.drain()
                    writer.write_eof()
                    while await reader.read(_MAX_HEAD_BYTES):
                        """A body that is still under way is read, or the answer would be lost."""
        finally:
            writer.close()


def _answer(reason: str) -> bytes:
    error = {"code": "deployment_failed", "message": f"No worker answers. {reason}"}
    body = msgspec.json.encode({"error": error, "message": error["message"]})
    head = (
        "HTTP/1.1 503 Service Unavailable\r\n"
        "content-type: application/json\r\n"
        f"content-length: {len(body)}\r\n"
        f"retry-after: {RETRY_AFTER_S}\r\n"
        "connection: close\r\n\r\n"
    )
    return head.encode() + body

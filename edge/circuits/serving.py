"""Connections: requests in, answers out, in order, until the client or a drain ends them."""

from __future__ import annotations

import asyncio
import contextlib
import http
import logging
from typing import TYPE_CHECKING, Final

from edge.circuits.reading import Reading
from edge.circuits.service import Service, error_response
from scoring.errors import FieldpostError, OverloadedError

if TYPE_CHECKING:
    import socket

    from edge.circuits.settings import Settings
    from scoring.http import Response

logger = logging.getLogger(__name__)

_REASONS: Final = {status.value: status.phrase for status in http.HTTPStatus}
_LINGER_S: Final = 1.0


class Serving:
    """The connections of a worker; lives on the event loop.

    Args:
        service: Answers.
        settings: Limits and timeouts.
    """

    def __init__(self, service: Service, settings: Settings) -> None:
        self._service, self._settings = service, settings
        self._idle: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._draining = False

    async def listen(self, listener: socket.socket) -> asyncio.Server:
        """Accepts from a socket."""
        limit = self._settings.max_header_bytes
        return await asyncio.start_server(self._connected, sock=listener, limit=limit)

    async def take(self, client: socket.socket) -> None:
        """Serves a connection that has been accepted."""
        client.setblocking(False)
        limit = self._settings.max_header_bytes
        self._connected(*await asyncio.open_connection(sock=client, limit=limit))

    async def drain(self) -> None:
        """Answers what has begun, and ends what lies idle after a grace."""
        self._draining = True
        await self._until_empty(self._settings.drain_idle_s)
        for writer in self._idle:
            writer.close()
        await self._until_empty(self._settings.drain_timeout_s - self._settings.drain_idle_s)
        for task in self._tasks:
            task.cancel()
        await self._until_empty(1.0)

    async def _until_empty(self, seconds: float) -> None:
        if self._tasks and seconds > 0:
            await asyncio.wait(self._tasks, timeout=seconds)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if len(self._tasks) > self._settings.max_connections:
                raise OverloadedError("There are too many connections.", hint="Ask again later.")
            reading = Reading(reader, writer, self._settings)
            while await self._answer_next(reading, writer):
                """The next request."""
        except FieldpostError as error:  # of which nobody knows where it ends
            await self._refuse(error, reader, writer)
        except (OSError, TimeoutError, asyncio.CancelledError):
            """The client has gone, or has nothing to say."""
        finally:
            self._idle.discard(writer)
            writer.close()

    async def _answer_next(self, reading: Reading, writer: asyncio.StreamWriter) -> bool:
        self._idle.add(writer)
        first = await reading.begin()
        self._idle.discard(writer)
        if not first:
            return False
        request, goes_on = await reading.request(first)
        response = await self._service.answer(request)
        last = self._draining or not goes_on
        await self._write(writer, response, last=last, bodiless=request.method == "HEAD")
        return not last

    async def _refuse(
        self, error: FieldpostError, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        with contextlib.suppress(OSError, TimeoutError):
            await self._write(writer, error_response(error), last=True)
            writer.write_eof()
            async with asyncio.timeout(_LINGER_S):  # or what it still sends would reset the answer
                while await reader.read(1 << 16):
                    """What is still under way."""

    async def _write(
        self,
        writer: asyncio.StreamWriter,
        response: Response,
        *,
        last: bool,
        bodiless: bool = False,
    ) -> None:
        assert isinstance(response.body, bytes)
        lines = [f"HTTP/1.1 {response.status} {_REASONS.get(response.status, 'Unknown')}"]
        lines += [f"{name}: {value}" for name, value in response.headers]
        lines.append(f"content-length: {len(response.body)}")
        lines += ["connection: close"] if last else []
        writer.write("\r\n".join([*lines, "", ""]).encode("latin-1", "replace"))
        if not bodiless:
            writer.write(response.body)
        async with asyncio.timeout(self._settings.write_timeout_s):
            await writer.drain()

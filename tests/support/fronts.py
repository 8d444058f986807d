"""A front in a thread before servers that do what a test says: real sockets, raw bytes."""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Self

import uvloop

from serve.endpoints.front.config import Address, FrontConfig, FrontSettings
from serve.endpoints.front.downstream import Downstream
from serve.endpoints.front.front import Front
from serve.endpoints.traffic import Traffic

if TYPE_CHECKING:
    from serve.endpoints.front.stats import Counts, Report

Answer = Callable[["Conversation"], Awaitable[None]]


class Conversation:
    """One connection of a server that a test scripts."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.head = b""
        self.body = b""

    async def request(self) -> bool:
        """Reads a whole request; False where there is none."""
        try:
            self.head = await self.reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            return False
        lowered = self.head.lower()
        self.body = b""
        if b"\r\ntransfer-encoding: chunked" in lowered:
            while size := int((await self.reader.readline()).strip(), 16):
                self.body += await self.reader.readexactly(size)
                await self.reader.readexactly(2)
            await self.reader.readexactly(2)
        elif b"\r\ncontent-length: " in lowered:
            length = lowered.partition(b"\r\ncontent-length: ")[2].partition(b"\r\n")[0]
            self.body = await self.reader.readexactly(int(length))
        return True

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def say(self, text: bytes, status: bytes = b"200 OK") -> None:
        await self.send(b"HTTP/1.1 %b\r\nContent-Length: %d\r\n\r\n%b" % (status, len(text), text))


class Far:
    """A server behind a front, in a thread.

    Args:
        answer: Answers one request, again and again; by default with its name.
        name: What it says.
        tls: For one that speaks it.

    Attributes:
        seen: The head and body of each request that is no probe.
        connections: How many it has accepted.
    """

    def __init__(
        self, name: str, answer: Answer | None = None, tls: ssl.SSLContext | None = None
    ) -> None:
        self.name = name
        self.tls = tls
        self.seen: list[tuple[bytes, bytes]] = []
        self.connections = 0
        self.port = 0
        self.answer = answer or self._say_name
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[Any]] = set()

    @property
    def url(self) -> str:
        return f"http{'s' if self.tls else ''}://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._thread.start()
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def open(self) -> None:
        """Listens, on the port that it had."""

        async def begin() -> None:
            self._server = await asyncio.start_server(
                self._serve, "127.0.0.1", self.port, ssl=self.tls
            )
            self.port = self._server.sockets[0].getsockname()[1]

        asyncio.run_coroutine_threadsafe(begin(), self._loop).result(10)

    def close(self) -> None:
        """Listens no more, and resets all connections."""

        async def end() -> None:
            if self._server is not None:
                self._server.close()
                self._server = None
            await self._end()

        asyncio.run_coroutine_threadsafe(end(), self._loop).result(10)

    async def _end(self) -> None:
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _say_name(self, talk: Conversation) -> None:
        await talk.say(self.name.encode())

    def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.ensure_future(self._converse(Conversation(reader, writer)))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _converse(self, talk: Conversation) -> None:
        try:
            while await talk.request():
                if talk.head.startswith(b"GET /v2/health/ready"):
                    self.connections -= 1
                    await talk.say(b"")
                    break
                self.seen.append((talk.head, talk.body))
                await self.answer(talk)
                if talk.writer.is_closing():
                    break
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            talk.writer.close()


class LiveFront:
    """A front on a free port, its event loop in a thread.

    Args:
        traffic: Where requests go.
        fars: The servers by deployment.
        draw: Numbers in [0, 1); by chance where not given.
        settings: Of the front.
    """

    def __init__(
        self,
        traffic: Traffic,
        fars: Mapping[str, str | Address],
        *,
        draw: Callable[[], float] | None = None,
        **settings: Any,
    ) -> None:
        self.settings = FrontSettings(**settings)
        self.config = self._config(1, traffic, fars)
        self._draw = draw
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._run)
        self._started = threading.Event()
        self._stop = asyncio.Event()
        self.front: Front
        self.port = 0

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._started.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)
        assert not self._thread.is_alive()

    def apply(self, traffic: Traffic, fars: Mapping[str, str | Address]) -> None:
        """Another traffic."""
        config = self._config(self.config.generation + 1, traffic, fars)
        self.config = config
        self.call(lambda: self.front.apply(config))

    def call(self, function: Callable[[], Any]) -> Any:
        """Runs something on the loop's thread."""

        async def wrapped() -> Any:
            return function()

        return asyncio.run_coroutine_threadsafe(wrapped(), self._loop).result(10)

    def report(self) -> Report:
        found: Report = self.call(self.front.report)
        return found

    def counts(self, name: str) -> Counts:
        return self.report().backends[name]

    @staticmethod
    def _config(
        generation: int, traffic: Traffic, fars: Mapping[str, str | Address]
    ) -> FrontConfig:
        addresses = {
            name: Address(where) if isinstance(where, str) else where
            for name, where in fars.items()
        }
        return FrontConfig(name="ep", generation=generation, traffic=traffic, addresses=addresses)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        async def nobody() -> list[Report]:
            return []

        given = {"draw": self._draw} if self._draw is not None else {}
        self.front = Front(self.settings, self.config, nobody, **given)
        self.front.start()
        server = await self._loop.create_server(lambda: Downstream(self.front), "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._started.set()
        await self._stop.wait()
        server.close()
        await self.front.stop()
        await server.wait_closed()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await asyncio.sleep(0.01)  # for transports to close

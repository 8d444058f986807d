"""Many clients at once on kept and fresh connections, which keep what went wrong.

The clients live on an event loop in a thread of their own, so that tests of any kind can use them.
"""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Callable

LINE = b"\r\n"


@dataclass
class Client:
    """One client.

    Attributes:
        keep: Requests on one connection before it opens another one.
        answers: How many it has had.
        bodies: The last answer's body.
        failures: What went wrong, other than a connection that ended as it was announced.
    """

    keep: int
    answers: int = 0
    body: bytes = b""
    failures: list[str] = field(default_factory=list)


class Load:
    """Clients that send one request after the other until the block ends.

    Args:
        port: Of the server, on loopback.
        request: Its bytes.
        clients: How many; every third one opens a connection for each request.
        check: Takes the body of each answer; False is a failure.
    """

    def __init__(
        self,
        port: int,
        request: bytes,
        clients: int = 20,
        check: Callable[[bytes], bool] = lambda _body: True,
    ) -> None:
        self.clients = [Client(1 if n % 3 == 0 else 200) for n in range(clients)]
        self._port = port
        self._request = request
        self._check = check
        self._done = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join(30)
        assert not self._thread.is_alive(), "a client waits for ever"

    @property
    def failures(self) -> list[str]:
        """Of all clients."""
        return [text for client in self.clients for text in client.failures]

    @property
    def answers(self) -> int:
        """Of all clients."""
        return sum(client.answers for client in self.clients)

    def went_on(self, times: int = 10) -> Callable[[], bool]:
        """A condition: each client has had so many more answers since now."""
        before = [client.answers for client in self.clients]
        return lambda: all(
            client.answers - count >= times
            for client, count in zip(self.clients, before, strict=True)
        )

    async def _run(self) -> None:
        await asyncio.gather(*map(self._act, self.clients))

    async def _act(self, client: Client) -> None:
        while not self._done.is_set():
            try:
                async with asyncio.timeout(20):
                    await self._converse(client)
            except (OSError, EOFError, ValueError, TimeoutError) as error:
                client.failures.append(repr(error))

    async def _converse(self, client: Client) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            for _ in range(client.keep):
                if self._done.is_set() or not await self._ask(client, reader, writer):
                    return
        finally:
            writer.close()

    async def _ask(
        self, client: Client, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        """One request; whether the connection may be used again."""
        writer.write(self._request)
        head = (await reader.readuntil(LINE * 2)).lower()
        fields = dict(line.split(b": ", 1) for line in head.split(LINE)[1:-2])
        client.body = await reader.readexactly(int(fields[b"content-length"]))
        if head.split(b" ", 2)[1] != b"200" or not self._check(client.body):
            client.failures.append(f"{head!r} {client.body!r}")
        client.answers += 1
        return fields.get(b"connection") != b"close"


def get(path: str) -> bytes:
    """A request without a body."""
    return f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode()


def post(path: str, body: bytes) -> bytes:
    """A request with a JSON body."""
    head = f"POST {path} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body

"""A small HTTP/1.1 server for devices: whole files, parts of them, and short answers.

The standard library's asyncio with httptools, on a thread of its own. Everything has an end: heads,
bodies, connections, the patience with those who are silent or read slowly. What is asked for is
worked out on threads, so that no database holds anybody else up.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import ssl
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import unquote

import httptools

from edge.security.names import Who, of_peer
from scoring.errors import FieldpostError, UnreachableError

logger = logging.getLogger(__name__)

MOST_HEAD: Final = 16 * 1024
MOST_BODY: Final = 64 * 1024
MOST_CONNECTIONS: Final = 4096
IDLE_S: Final = 75.0
READ_S: Final = 20.0
SLICE_BYTES: Final = 1 << 20
SLICE_S: Final = 180.0
"""For each slice of a file: who reads slower loses the connection, and goes on later."""

_THREADS: Final = 8
_HEAD_ENDS: Final = b"\r\n\r\n"


class Request(NamedTuple):
    """A request.

    Attributes:
        method: In capitals.
        path: Without the query, decoded.
        headers: Names in small letters; the first of each.
        body: All of it.
        peer: The device at the other end, by its certificate.
        serial: Of the certificate; None where there is none.
        is_local: Whether it comes from this machine itself.
    """

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    peer: Who | None
    serial: int | None
    is_local: bool = False


class FilePart(NamedTuple):
    """Bytes of a file.

    Attributes:
        path: The file.
        begin: Where they begin.
        length: How many.
    """

    path: Path
    begin: int
    length: int


class Answer(NamedTuple):
    """An answer.

    Attributes:
        status: Of HTTP.
        body: Bytes, or where they are.
        headers: Besides length, date and connection.
    """

    status: int
    body: bytes | FilePart = b""
    headers: tuple[tuple[str, str], ...] = ()


Route = Callable[[Request], Answer | None]
"""Answers a request, on a thread of the server's; None for one that is not its subject."""


class WebServer:
    """Serves routes.

    Args:
        routes: Asked in order; more may be put there before `start`.
        host: To listen at.
        port: 0 for a free one.
        tls: For HTTPS; None for plain HTTP.
    """

    def __init__(
        self,
        routes: Sequence[Route],
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._routes = routes
        self._host = host
        self._port = port
        self._tls = tls
        self._loop = asyncio.new_event_loop()
        self._threads = ThreadPoolExecutor(_THREADS, "fleet-web")
        self._thread = threading.Thread(target=self._run, name="fleet-web", daemon=True)
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Begins to answer; raises like `bind`."""
        if self._server is None:
            self.bind()
        self._thread.start()

    def bind(self) -> int:
        """Takes the address, so that its port is known before anybody is answered.

        Returns:
            The port.

        Raises:
            UnreachableError: The address cannot be had.
        """
        try:
            self._server = self._loop.run_until_complete(self._listen())
        except OSError as error:
            self._loop.close()
            raise UnreachableError(
                f"The controller cannot listen at {self._host}:{self._port}: {error.strerror}.",
                hint="Choose another port, or end what has it.",
                where="listen",
            ) from error
        return self.port

    async def _listen(self) -> asyncio.Server:
        return await asyncio.start_server(
            self._accept, self._host, self._port, ssl=self._tls, limit=MOST_HEAD, backlog=1024
        )

    @property
    def port(self) -> int:
        """Where it listens."""
        assert self._server is not None
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    def renew(self, certificate: Path) -> None:
        """Shows another certificate from the next connection on.

        On the thread that shakes hands: OpenSSL frees the old one, whoever is reading it.

        Args:
            certificate: A file with its key.

        Raises:
            OSError: It cannot be read, or its key is of another one.
        """
        if self._tls is not None:
            asyncio.run_coroutine_threadsafe(self._renew(certificate), self._loop).result(READ_S)

    async def _renew(self, certificate: Path) -> None:
        assert self._tls is not None
        self._tls.load_cert_chain(certificate)

    def close(self) -> None:
        """Ends what is going on, and the server."""
        if self._thread.is_alive():
            asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(10)
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(10)
        self._threads.shutdown(wait=True, cancel_futures=True)
        if not self._loop.is_closed():
            self._loop.close()

    async def _end(self) -> None:
        assert self._server is not None
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        if len(self._tasks) >= MOST_CONNECTIONS:
            writer.transport.abort()
            return
        self._tasks.add(task)
        try:
            await self._converse(reader, writer)
        except (OSError, EOFError, asyncio.LimitOverrunError, httptools.HttpParserError):
            pass  # whoever it was is gone, too slow, or speaks no HTTP
        except asyncio.CancelledError:
            writer.transport.abort()
        finally:
            self._tasks.discard(task)
            writer.close()
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await writer.wait_closed()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        certificate = writer.get_extra_info("peercert")
        serial = int(certificate["serialNumber"], 16) if certificate else None
        peer = of_peer(certificate)
        is_local = _is_loopback(writer.get_extra_info("peername"))
        while True:
            head = await asyncio.wait_for(reader.readuntil(_HEAD_ENDS), IDLE_S)
            parsed = _parse(head)
            length = parsed.body_length
            if length is None:
                await _send(writer, Answer(HTTPStatus.REQUEST_ENTITY_TOO_LARGE), parsed, keep=False)
                return
            if parsed.headers.get("expect", "").lower() == "100-continue":
                writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            body = await asyncio.wait_for(reader.readexactly(length), READ_S)
            request = Request(
                parsed.method, parsed.path, parsed.headers, body, peer, serial, is_local
            )
            answer = await self._loop.run_in_executor(self._threads, self._answer, request)
            await _send(writer, answer, parsed, keep=parsed.keep)
            if not parsed.keep:
                return

    def _answer(self, request: Request) -> Answer:
        try:
            for route in self._routes:
                answer = route(request)
                if answer is not None:
                    return answer
        except FieldpostError as error:
            logger.warning("request failed path=%s reason=%s", request.path[:200], error)
            return Answer(HTTPStatus.SERVICE_UNAVAILABLE)
        except Exception:
            logger.exception("request failed path=%s", request.path[:200])
            return Answer(HTTPStatus.INTERNAL_SERVER_ERROR)
        return Answer(HTTPStatus.NOT_FOUND)


def _is_loopback(peer: object) -> bool:
    host = str(peer[0]).partition("%")[0] if isinstance(peer, tuple) and peer else ""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)


class _Head:
    """What httptools tells of a head."""

    def __init__(self) -> None:
        self.url = b""
        self.headers: dict[str, str] = {}
        self.method = ""
        self.keep = False
        self._repeated = False

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        key = name.decode("latin-1").lower()
        self._repeated |= key == "content-length" and key in self.headers
        self.headers.setdefault(key, value.decode("latin-1"))

    @property
    def path(self) -> str:
        return unquote(self.url.partition(b"?")[0].decode("latin-1"))

    @property
    def body_length(self) -> int | None:
        """None for more than is taken, or an unknown length."""
        text = self.headers.get("content-length", "0")
        if "transfer-encoding" in self.headers or self._repeated or not text.isdigit():
            return None
        return int(text) if len(text) < 10 and int(text) <= MOST_BODY else None  # noqa: PLR2004


def _parse(head: bytes) -> _Head:
    parsed = _Head()
    parser: Any = httptools.HttpRequestParser(parsed)
    parser.feed_data(head)
    parsed.method = parser.get_method().decode()
    parsed.keep = parser.should_keep_alive()
    return parsed


async def _send(writer: asyncio.StreamWriter, answer: Answer, head: _Head, *, keep: bool) -> None:
    length = answer.body.length if isinstance(answer.body, FilePart) else len(answer.body)
    status = HTTPStatus(answer.status)
    lines = [f"HTTP/1.1 {status.value} {status.phrase}", f"content-length: {length}"]
    lines += [f"{name}: {value}" for name, value in answer.headers]
    lines += [] if keep else ["connection: close"]
    writer.write("\r\n".join([*lines, "", ""]).encode("latin-1"))
    if head.method != "HEAD":
        if isinstance(answer.body, FilePart):
            await _send_file(writer, answer.body)
        else:
            writer.write(answer.body)
    await asyncio.wait_for(writer.drain(), SLICE_S)


async def _send_file(writer: asyncio.StreamWriter, part: FilePart) -> None:
    await asyncio.wait_for(writer.drain(), SLICE_S)
    loop = asyncio.get_running_loop()
    with part.path.open("rb") as file:
        done = 0
        while done < part.length:
            count = min(SLICE_BYTES, part.length - done)
            sending = loop.sendfile(writer.transport, file, part.begin + done, count)
            sent = await asyncio.wait_for(sending, SLICE_S)
            if not sent:
                raise EOFError("the file is shorter than it was")
            done += sent

"""HTTP/1.1 from a connection: what is a request, how long its body is, and what is refused."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import unquote, urlsplit

from scoring.http import Request
from scoring.httperrors import (
    BadRequestError,
    HeadersTooLargeError,
    RequestTimeoutError,
)
from scoring.httphead import check_head, too_large

if TYPE_CHECKING:
    from edge.circuits.settings import Settings

_LINE: Final = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]{1,32}) ([!-~]+) HTTP/(\d\.\d)")
_FIELD: Final = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*([^\x00-\x08\x0a-\x1f\x7f]*)")
_CHUNK: Final = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\x00-\x08\x0a-\x1f\x7f]*)?\r\n")
_LENGTH: Final = re.compile(rb"\d{1,18}")
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"

Headers = list[tuple[bytes, bytes]]


class Head(NamedTuple):
    """The head of a request.

    Attributes:
        method: Upper case, as it was sent.
        target: Path and query.
        version: `1.0` or `1.1`.
        headers: Names in lower case.
    """

    method: bytes
    target: bytes
    version: str
    headers: Headers

    def values(self, name: bytes) -> list[bytes]:
        """All values of a header."""
        return [value for key, value in self.headers if key == name]

    @property
    def keeps_alive(self) -> bool:
        """Whether the client wants to go on with this connection."""
        tokens = b",".join(self.values(b"connection")).lower()
        named = {token.strip() for token in tokens.split(b",")}
        return b"keep-alive" in named if self.version == "1.0" else b"close" not in named


def parse_head(data: bytes, most_headers: int) -> Head:
    """Reads a head, its last empty line included.

    Raises:
        BadRequestError: It is none, or ambiguous.
        HeadersTooLargeError: It has too many fields.
    """
    first, *lines = data.removesuffix(b"\r\n\r\n").split(b"\r\n")
    match = _LINE.fullmatch(first)
    if match is None:
        raise BadRequestError("The first line is no request of HTTP.")
    if len(lines) > most_headers:
        raise HeadersTooLargeError(f"There are more than {most_headers} header fields.")
    headers = []
    for line in lines:
        field = _FIELD.fullmatch(line)
        if field is None:
            raise BadRequestError("A header field is malformed.")
        headers.append((field[1].lower(), field[2].rstrip(b" \t")))
    return Head(match[1], match[2], match[3].decode(), headers)


def body_length(head: Head) -> int | None:
    """How long the body is; None where it comes in chunks.

    Raises:
        BadRequestError: There is more than one way to read it.
    """
    lengths = head.values(b"content-length")
    if head.values(b"transfer-encoding"):
        if lengths or len(head.values(b"transfer-encoding")) > 1:
            raise BadRequestError("The request has two framings.", where="transfer-encoding")
        return None
    if not lengths:
        return 0
    if len(lengths) > 1 or not _LENGTH.fullmatch(lengths[0]):
        raise BadRequestError("Content-Length is no number of bytes.", where="content-length")
    return int(lengths[0])


class Reading:
    """Reads requests from a connection.

    Args:
        reader: Where they come from; its limit is that of a head.
        writer: Where `100 Continue` goes.
        settings: Limits and timeouts.
    """

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, settings: Settings
    ) -> None:
        self._reader, self._writer, self._settings = reader, writer, settings

    async def begin(self) -> bytes:
        """The first byte of the next request; empty where the client has ended.

        Raises:
            TimeoutError: None came for too long.
        """
        async with asyncio.timeout(self._settings.keep_alive_timeout_s):
            while (byte := await self._reader.read(1)) in {b"\r", b"\n"}:
                """Empty lines before a request are skipped, as HTTP has it."""
            return byte

    async def request(self, first: bytes) -> tuple[Request, bool]:
        """The rest of a request, and whether the client wants to go on.

        Raises:
            FieldpostError: It is refused.
            ConnectionError: The client has gone.
        """
        try:
            async with asyncio.timeout(self._settings.header_timeout_s):
                head = await self._head(first)
            async with asyncio.timeout(self._settings.body_timeout_s):
                body = await self._body(head)
        except TimeoutError:
            raise RequestTimeoutError("The request came too slowly.") from None
        except asyncio.IncompleteReadError as error:
            raise ConnectionResetError("the client ended in the middle of a request") from error
        return _request(head, body), head.keeps_alive

    async def _head(self, first: bytes) -> Head:
        try:
            data = first + await self._reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            raise HeadersTooLargeError(
                f"The head is over the limit of {self._settings.max_header_bytes} bytes."
            ) from None
        return parse_head(data, self._settings.max_headers)

    async def _body(self, head: Head) -> bytes:
        length = body_length(head)
        if check_head(head.headers, head.version, head.method, self._settings):
            self._writer.write(_CONTINUE)
        if length is None:
            return await self._chunks()
        return await self._reader.readexactly(length) if length else b""

    async def _chunks(self) -> bytes:
        most = self._settings.max_body_bytes
        body = bytearray()
        while size := await self._chunk_size():
            if len(body) + size > most:
                raise too_large(most)
            body += await self._reader.readexactly(size)
            if await self._reader.readexactly(2) != b"\r\n":
                raise BadRequestError("A chunk does not end where it should.")
        for _ in range(self._settings.max_headers + 1):  # trailers, of which none is needed
            if await self._line() == b"\r\n":
                return bytes(body)
        raise HeadersTooLargeError("There are too many trailers.")

    async def _chunk_size(self) -> int:
        match = _CHUNK.fullmatch(await self._line())
        if match is None:
            raise BadRequestError("The size of a chunk is malformed.")
        return int(match[1], 16)

    async def _line(self) -> bytes:
        try:
            return await self._reader.readuntil(b"\r\n")
        except asyncio.LimitOverrunError:
            raise HeadersTooLargeError("A line between chunks is too long.") from None


def _request(head: Head, body: bytes) -> Request:
    target = head.target.decode("ascii")
    if not target.startswith("/"):  # as proxies are asked; HTTP/1.1 has servers take it, too
        try:
            parts = urlsplit(target)
        except ValueError:
            raise BadRequestError("The request's target is no URL.") from None
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    path, _, query = target.partition("?")
    headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in head.headers]
    return Request(head.method.decode(), unquote(path), query, headers, body)

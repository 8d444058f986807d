"""HTTP/1.1 answers as bytes, and request targets as text. Pure."""

from __future__ import annotations

import logging
import re
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asyncio import BaseTransport
    from collections.abc import Iterable

logger = logging.getLogger(__name__)

SERVER = b"fieldpost"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
LAST_CHUNK = b"0\r\n\r\n"
NO_BODY = frozenset({204, 304})
_STATUSES = range(200, 600)

_REASONS = {
    200: b"OK", 201: b"Created", 202: b"Accepted", 204: b"No Content", 301: b"Moved Permanently",
    302: b"Found", 303: b"See Other", 304: b"Not Modified", 307: b"Temporary Redirect",
    308: b"Permanent Redirect", 400: b"Bad Request", 401: b"Unauthorized", 403: b"Forbidden",
    404: b"Not Found", 405: b"Method Not Allowed", 408: b"Request Timeout", 409: b"Conflict",
    410: b"Gone", 413: b"Content Too Large", 414: b"URI Too Long", 415: b"Unsupported Media Type",
    417: b"Expectation Failed", 422: b"Unprocessable Content", 429: b"Too Many Requests",
    431: b"Request Header Fields Too Large", 500: b"Internal Server Error",
    501: b"Not Implemented", 502: b"Bad Gateway", 503: b"Service Unavailable",
    504: b"Gateway Timeout", 505: b"HTTP Version Not Supported", 507: b"Insufficient Storage",
}  # fmt: skip
_OURS = frozenset({"content-length", "transfer-encoding", "connection", "date", "server"})
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*\Z")
_ESCAPED = re.compile(rb"%([0-9A-Fa-f]{2})")
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = (
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
)  # fmt: skip


def http_date(seconds: float) -> bytes:
    """A time since the epoch as HTTP writes it (in English, whatever the locale)."""
    import time  # noqa: PLC0415 - the only use, and builtin

    year, month, day, hour, minute, second, weekday, *_ = time.gmtime(seconds)
    name, month_name = _DAYS[weekday], _MONTHS[month - 1]
    text = f"{name}, {day:02d} {month_name} {year:04d} {hour:02d}:{minute:02d}:{second:02d} GMT"
    return text.encode()


def ok_head(date: bytes) -> bytes:
    """The head of the most frequent answer, 200 with JSON, up to the value of its length."""
    return (
        b"HTTP/1.1 200 OK\r\nserver: %b\r\ndate: %b\r\n"
        b"content-type: application/json\r\ncontent-length: " % (SERVER, date)
    )


def head(
    status: int,
    headers: Iterable[tuple[str, str]],
    *,
    date: bytes,
    length: int | None = None,
    chunked: bool = False,
    connection: bytes = b"",
) -> bytes:
    """The head of an answer.

    Args:
        status: Of a script's answer it may be anything; what HTTP does not know becomes 500.
        headers: The route's; those that the server sets are skipped, invalid ones dropped.
        date: As `http_date` writes it.
        length: Of the body; None for one that ends with the connection, or is chunked.
        chunked: The body comes in chunks.
        connection: The value of `connection`; empty for none.
    """
    if status not in _STATUSES:
        logger.error("A response has the status %r, which HTTP does not know", status)
        status = 500
    reason = _REASONS.get(status, b"")
    parts = [b"HTTP/1.1 %d %b\r\nserver: %b\r\ndate: %b\r\n" % (status, reason, SERVER, date)]
    fields = [
        f"{name}: {value}\r\n"
        for name, value in headers
        # In nearly all values there is nothing to look for.
        if _is_usable(name)
        and ((value.isascii() and value.isprintable()) or _is_valid(name, value))
    ]
    parts.append("".join(fields).encode("latin-1"))
    if status not in NO_BODY:
        if chunked:
            parts.append(b"transfer-encoding: chunked\r\n")
        elif length is not None:
            parts.append(b"content-length: %d\r\n" % length)
    if connection:
        parts.append(b"connection: %b\r\n" % connection)
    parts.append(b"\r\n")
    return b"".join(parts)


@lru_cache(512)
def _is_usable(name: str) -> bool:
    """Whether a field of this name is sent, if its value is valid."""
    if name.lower() in _OURS:
        return False
    valid = _NAME.match(name) is not None
    if not valid:
        _warn(name)
    return valid


def _is_valid(name: str, value: str) -> bool:
    # A line break in a value would let a script's caller write headers, or a second answer.
    valid = _VALUE.match(value) is not None
    if not valid:
        _warn(name)
    return valid


def _warn(name: str) -> None:
    logger.warning("Dropped a response header that HTTP does not allow: %r", name)


def chunk(data: bytes) -> bytes:
    """One chunk of a chunked body; `data` is not empty."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def split_target(target: bytes) -> tuple[str, str]:
    """A request target as (decoded path, raw query); absolute form and fragment are cut."""
    if not target.startswith(b"/") and b"://" in target:
        rest = target.partition(b"://")[2]
        slash = rest.find(b"/")
        target = rest[slash:] if slash >= 0 else b"/"
    path, _, query = target.partition(b"#")[0].partition(b"?")
    if b"%" in path:
        path = _ESCAPED.sub(lambda match: bytes.fromhex(match[1].decode()), path)
    return path.decode("utf-8", "replace"), query.decode("latin-1")


def address_of(transport: BaseTransport) -> str:
    """The address of the other end; empty where there is none (a Unix socket)."""
    name = transport.get_extra_info("peername")
    return str(name[0]) if isinstance(name, tuple) else ""

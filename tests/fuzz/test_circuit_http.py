"""The small runtime's reading of HTTP: whatever comes is a request, or refused in our words."""

from __future__ import annotations

import asyncio

from hypothesis import example, given, settings
from hypothesis import strategies as st

from edge.circuits.reading import Reading, body_length, parse_head
from edge.circuits.settings import Settings
from scoring.errors import FieldpostError

LIMITS = Settings(max_header_bytes=512, max_headers=8, max_body_bytes=256)
words = st.sampled_from(
    [
        *(
            b"GET",
            b"POST",
            b" ",
            b"/score",
            b"*",
            b"http://x/y?z",
            b"/%ff",
            b"HTTP/1.1",
            b"HTTP/1.0",
        ),
        *(b"HTTP/1.1", b"HTTP/1.0"),
        *(b"\r\n", b"\n", b"\r", b":", b": ", b"Host", b"x", b"\t", b"\x00", b"\xff"),
        *(b"Content-Length", b"Transfer-Encoding", b"chunked", b"gzip", b"Expect", b"100-continue"),
        *(b"0", b"5", b"999", b"-1", b"ff", b";", b"close", b"Connection"),
    ]
)
requests = st.lists(words | st.binary(max_size=4), max_size=40).map(b"".join)
heads = st.lists(words, max_size=12).map(
    lambda parts: b"POST /score HTTP/1.1\r\nHost: x\r\n" + b"".join(parts)
)


@settings(max_examples=400, deadline=None)
@given(data=requests | heads)
@example(data=b"GET / HTTP/1.1\r\nHost: x")
def test_heads_are_read_or_refused(data: bytes) -> None:
    try:
        head = parse_head(data + b"\r\n\r\n", 8)
        length = body_length(head)
    except FieldpostError:
        return
    assert head.method
    assert length is None or length >= 0
    assert not any(b"\r" in value or b"\n" in value for _, value in head.headers)


@settings(max_examples=300, deadline=None)
@example(data=b"GET http://[ HTTP/1.1\r\nHost: x\r\n\r\n", rest=b"")
@given(data=(requests | heads).map(lambda text: text + b"\r\n\r\n"), rest=requests)
def test_requests_are_read_or_refused(data: bytes, rest: bytes) -> None:
    asyncio.run(read(data + rest))


async def read(data: bytes) -> None:
    reader = asyncio.StreamReader(limit=LIMITS.max_header_bytes)
    reader.feed_data(data)
    reader.feed_eof()
    reading = Reading(reader, Writer(), LIMITS)  # type: ignore[arg-type]
    try:
        while first := await reading.begin():
            request, _ = await reading.request(first)
            assert len(request.body) <= LIMITS.max_body_bytes
            assert request.path
    except (FieldpostError, ConnectionResetError):
        """Refused, or cut off."""


class Writer:
    """Takes what says that a body may come."""

    def write(self, data: bytes) -> None:
        assert data == b"HTTP/1.1 100 Continue\r\n\r\n"

"""HTTP messages as plain values, so that contracts and routes need no server to be tested."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass(slots=True)
class Request:
    """One request, its body complete.

    Attributes:
        method: Upper case.
        path: Decoded, without the query.
        query: The raw query string, without the question mark.
        headers: Names in lower case; repeated headers stand as repeated pairs, in order.
        body: The decoded body (transfer and content encodings removed).
    """

    method: str
    path: str
    query: str = ""
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""

    def header(self, name: str, default: str = "") -> str:
        """The first value of a header; `name` in lower case."""
        for key, value in self.headers:
            if key == name:
                return value
        return default


@dataclass(slots=True)
class Response:
    """One answer; an iterator as body is streamed with chunked encoding.

    Attributes:
        status: The HTTP status.
        body: Whole bytes, or an iterator of chunks (closed by the server in every case).
        headers: Without `content-length`, `transfer-encoding`, `connection` and `date`, which the
            server sets.
    """

    status: int
    body: bytes | Iterator[bytes] = b""
    headers: list[tuple[str, str]] = field(default_factory=list)

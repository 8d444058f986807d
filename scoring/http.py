"""HTTP messages as plain values, so that contracts and routes need no server to be tested."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

Got = Callable[[bytes | None, BaseException | None], object]
"""Takes a part of a body; None for its end, or what went wrong."""


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


class PulledBody:
    """A body that is asked for each of its parts, and makes them wherever its code belongs."""

    def pull(self, got: Got) -> None:
        """Asks for the next part; one at a time. `got` may be called on any thread."""
        raise NotImplementedError

    def close(self) -> None:
        """Nobody wants more, or its end was told. On any thread; does not wait."""
        raise NotImplementedError


@dataclass(slots=True)
class Response:
    """One answer; a body that is not bytes is streamed with chunked encoding.

    Attributes:
        status: The HTTP status.
        body: Whole bytes, an iterator of chunks, or a body that is pulled (both are closed by the
            server in every case).
        headers: Without `content-length`, `transfer-encoding`, `connection` and `date`, which the
            server sets.
    """

    status: int
    body: bytes | Iterator[bytes] | PulledBody = b""
    headers: list[tuple[str, str]] = field(default_factory=list)

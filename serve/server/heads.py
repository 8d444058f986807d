"""Heads of requests that a client sends again, byte for byte: parsed once, recognized after that.

Most clients send the same head with every request; only the body differs. What the parser has made
of such a head is kept for its connection, under the length of the whole request, which the head's
own `content-length` fixes. A later message is this request again only if it has that length and
begins with exactly these bytes; anything else goes to the parser, which nothing here replaces.
"""

from __future__ import annotations

_MOST = 64
_MAX_BYTES = 2048
_END = b"\r\n\r\n"


class Head:
    """A head of a plain POST with a JSON body, on a connection that goes on.

    Attributes:
        text: The bytes, with the empty line at their end.
        size: How many they are.
        target: The request target.
        headers: As the parser gave them.
        credential: Who the client says it is.
    """

    __slots__ = ("credential", "headers", "size", "target", "text")

    def __init__(
        self,
        text: bytes,
        target: bytes,
        headers: list[tuple[bytes, bytes]],
        credential: bytes,
    ) -> None:
        self.text = text
        self.size = len(text)
        self.target = target
        self.headers = headers
        self.credential = credential


class Heads:
    """The heads of one connection, by the length of their whole requests."""

    __slots__ = ("_known", "find")

    def __init__(self) -> None:
        self._known: dict[int, Head] = {}
        self.find = self._known.get

    def keep(
        self,
        data: bytes,
        body: bytes | bytearray,
        target: bytes,
        headers: list[tuple[bytes, bytes]],
        credential: bytes,
    ) -> None:
        """Remembers a request, if its message is its head and its body and nothing else.

        Args:
            data: What has arrived at once, and was one request from its first byte on.
            body: What the parser gave as its body.
            target: As `Head` has it.
            headers: As `Head` has it.
            credential: As `Head` has it.
        """
        size = len(data) - len(body)
        text = data[:size]
        if size > _MAX_BYTES or not text.endswith(_END) or text.find(_END) != size - len(_END):
            return
        lengths = [value for name, value in headers if name == b"content-length"]
        if lengths != [b"%d" % len(body)] or not data.endswith(body):
            return
        if len(self._known) >= _MOST:
            self._known.clear()
        self._known[len(data)] = Head(text, target, headers, credential)

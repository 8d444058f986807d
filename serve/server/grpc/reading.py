"""gRPC's messages out of the bytes of a stream. Pure."""

from __future__ import annotations

from scoring.errors import MalformedPayloadError, PayloadTooLargeError

_HEAD = 5
Message = tuple[bool, bytes]
"""Whether it is compressed, and its bytes."""


class MessageReader:
    """Takes bytes, gives whole messages.

    Args:
        most: Bytes of one message. A longer one is refused by its head, before it is there.
    """

    __slots__ = ("_have", "_most", "_parts", "_wanted")

    def __init__(self, most: int) -> None:
        self._most = most
        self._parts: list[bytes] = []
        self._have = 0
        self._wanted = _HEAD

    @property
    def held(self) -> int:
        """Bytes of a message that is not whole yet."""
        return self._have

    def feed(self, data: bytes) -> list[Message]:
        """The messages that these bytes complete.

        Raises:
            PayloadTooLargeError: One is over the limit.
            MalformedPayloadError: The head of one is wrong.
        """
        self._parts.append(data)
        self._have += len(data)
        found: list[Message] = []
        while self._have >= self._wanted:
            joined = b"".join(self._parts) if len(self._parts) > 1 else self._parts[0]
            if self._wanted == _HEAD:
                self._wanted = _HEAD + self._length(joined)
                self._parts = [joined]
                if self._have < self._wanted:
                    break
            found.append((bool(joined[0]), joined[_HEAD : self._wanted]))
            rest = joined[self._wanted :]
            self._parts, self._have, self._wanted = [rest], len(rest), _HEAD
        return found

    def _length(self, joined: bytes) -> int:
        if joined[0] > 1:
            raise MalformedPayloadError(
                f"A message begins with the byte {joined[0]}; 0 or 1 is wanted.",
                hint="Send gRPC's messages: a flag, a length in four bytes, protobuf.",
            )
        length = int.from_bytes(joined[1:_HEAD], "big")
        if length > self._most:
            raise PayloadTooLargeError(
                f"The message has {length} bytes; the server takes {self._most}.",
                hint="Send fewer rows at once, or raise max_body_bytes.",
            )
        return length


def framed(data: bytes, *, compressed: bool = False) -> bytes:
    """A message as it is sent."""
    return b"%c%b%b" % (compressed, len(data).to_bytes(4, "big"), data)

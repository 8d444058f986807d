"""gRPC's messages out of the bytes of a stream. Pure."""

from __future__ import annotations

from scoring.errors import MalformedPayloadError, PayloadTooLargeError

HEAD = 5
"""Bytes before a message: a flag, and its length."""

Message = tuple[bool, bytes]
"""Whether it is compressed, and its bytes."""


class MessageReader:
    """Takes bytes, gives whole messages, one when it is asked for.

    What waits stays the bytes that came: small messages would take many times that as objects.

    Args:
        most: Bytes of one message. A longer one is refused by its head, before it is there.

    Attributes:
        held: Bytes of messages that are not taken, or not whole.
    """

    __slots__ = ("_begin", "_most", "_parts", "held")

    def __init__(self, most: int) -> None:
        self._most = most
        self._parts: list[bytes] = []
        self._begin = 0
        self.held = 0

    def feed(self, data: bytes) -> None:
        """More bytes."""
        if data:
            self._parts.append(data)
            self.held += len(data)

    def take(self) -> Message | None:
        """The next message; None while it is not whole.

        Raises:
            PayloadTooLargeError: It is over the limit.
            MalformedPayloadError: Its head is wrong.
        """
        if self.held < HEAD:
            return None
        if len(self._parts[0]) - self._begin < HEAD:
            self._join()
        flag, size = self._head()
        end = self._begin + HEAD + size
        if self.held < HEAD + size:
            return None
        if len(self._parts[0]) < end:
            self._join()
            end = HEAD + size
        data = self._parts[0][self._begin + HEAD : end]
        self._begin = end
        self.held -= HEAD + size
        if end == len(self._parts[0]):
            del self._parts[0]
            self._begin = 0
        return bool(flag), data

    def _join(self) -> None:
        self._parts[0] = self._parts[0][self._begin :]
        self._parts = [b"".join(self._parts)]
        self._begin = 0

    def _head(self) -> tuple[int, int]:
        first, begin = self._parts[0], self._begin
        flag = first[begin]
        if flag > 1:
            raise MalformedPayloadError(
                f"A message begins with the byte {flag}; 0 or 1 is wanted.",
                hint="Send gRPC's messages: a flag, a length in four bytes, protobuf.",
            )
        size = int.from_bytes(first[begin + 1 : begin + HEAD], "big")
        if size > self._most:
            raise PayloadTooLargeError(
                f"The message has {size} bytes; the server takes {self._most}.",
                hint="Send fewer rows at once, or raise max_body_bytes.",
            )
        return flag, size


def framed(data: bytes, *, compressed: bool = False) -> bytes:
    """A message as it is sent."""
    return b"%c%b%b" % (compressed, len(data).to_bytes(4, "big"), data)

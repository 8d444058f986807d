"""Large bodies, read from the socket straight into the buffer that the route gets.

The parser has read the head, and with it that so many bytes of body follow. Handed over through
callbacks, each of them would be copied three times more than it has to be.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

_SMALLEST = 64 * 1024
_BEGUN = 16


def pays(arrived: int, length: int) -> bool:
    """Whether the rest of a body is worth the change of reader.

    So much has to be there already that announcing a large body alone takes no memory.
    """
    return length - arrived >= _SMALLEST and arrived * _BEGUN >= length


class Owner(Protocol):
    """The connection whose body is read; it goes on when that is whole, or cannot become so."""

    def body_arrives(self, arrived: int) -> None:
        """So many bytes of the body are there."""
        ...

    def eof_received(self) -> bool:
        """See `asyncio.Protocol`."""
        ...

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        ...

    def pause_writing(self) -> None:
        """See `asyncio.Protocol`."""
        ...

    def resume_writing(self) -> None:
        """See `asyncio.Protocol`."""
        ...


class BodyReader(asyncio.BufferedProtocol):
    """Takes a transport's place for the rest of one body, never a byte more.

    Args:
        owner: The connection.
        begun: What has arrived of the body.
        length: Of the whole body.
        done: Gets the body, once, when it is whole.
    """

    def __init__(
        self, owner: Owner, begun: bytes, length: int, done: Callable[[bytearray], None]
    ) -> None:
        self._owner = owner
        self._body = bytearray(length)
        self._body[: len(begun)] = begun
        self._view = memoryview(self._body)
        self._arrived = len(begun)
        self._done = done

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - the body's rest, however large
        """Where the next bytes belong."""
        return self._view[self._arrived :]

    def buffer_updated(self, nbytes: int) -> None:
        """They are there."""
        self._arrived += nbytes
        self._owner.body_arrives(self._arrived)
        if self._arrived == len(self._body):
            self._view.release()
            self._done(self._body)

    def eof_received(self) -> bool:
        """See `Owner`."""
        return self._owner.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """See `Owner`."""
        self._owner.connection_lost(exc)

    def pause_writing(self) -> None:
        """See `Owner`."""
        self._owner.pause_writing()

    def resume_writing(self) -> None:
        """See `Owner`."""
        self._owner.resume_writing()

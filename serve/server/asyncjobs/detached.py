"""A stored request as an exchange, so that the same handlers answer it as a live one."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from serve.server.exchange import Exchange

if TYPE_CHECKING:
    from collections.abc import Callable

    from scoring.http import Response
    from serve.server.asyncjobs.records import Request
    from serve.server.protocol import Connection

    Sink = Callable[[Response], None]


class _Sink:
    """What an exchange knows of its connection, for one that has none."""

    def __init__(self, answered: Sink, discard: Sink) -> None:
        self._answered = answered
        self.discard = discard

    @property
    def hub(self) -> _Sink:
        """Itself; kept, it would be a cycle."""
        return self

    def answer(self, _exchange: Exchange, response: Response) -> None:
        self._answered(response)


def detached(request: Request, body: bytes, answered: Sink, discard: Sink) -> Exchange:
    """An exchange whose answer goes to a function.

    Args:
        request: What was asked.
        body: Its body.
        answered: Gets the answer, on the event loop's thread.
        discard: Gets an answer that nobody wants any more.
    """
    headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in request.headers]
    return Exchange(
        cast("Connection", _Sink(answered, discard)),
        request.method.encode("ascii"),
        request.target.encode("latin-1"),
        headers,
        body,
        keep_alive=True,
    )

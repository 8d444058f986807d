"""A worker's side of the listening sockets: its own, and those of workers that are absent."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scoring.workercontract import Contract

logger = logging.getLogger(__name__)

Serve = Callable[[socket.socket], Awaitable[asyncio.Server]]
"""Begins to accept connections from a socket, which is the server's from then on."""

Take = Callable[[socket.socket], Awaitable[object]]
"""Serves a connection that has been accepted."""

LINGER_S = 0.1
"""How long a worker that leaves accepts from its own sockets yet."""

_GREETING_S = 1.0  # for the TLS handshakes of those who came last
_LINE_BYTES = 65_536


class Acceptor:
    """Accepts from the sockets that a worker has, and from others while it is told to.

    It lives on the event loop's thread.

    Args:
        serve: See `Serve`.
        take: See `Take`.
        own: Sockets to accept from until the end.
        spares: The sockets of other workers, by the numbers that the supervisor knows them by.
    """

    def __init__(
        self,
        serve: Serve,
        take: Take,
        own: Iterable[socket.socket],
        spares: Mapping[int, socket.socket],
    ) -> None:
        self._serve = serve
        self._take = take
        self._own = list(own)
        self._spares = dict(spares)
        self._servers: list[asyncio.Server] = []
        self._covering: dict[int, asyncio.Server] = {}
        self._wanted: frozenset[int] = frozenset()
        self._work: asyncio.Task[None] | None = None
        self._unfollow: Callable[[], None] = lambda: None
        self._closed = False

    async def open(self) -> None:
        """Begins to accept from the own sockets.

        Raises:
            OSError: The system does not let it.
        """
        for each in self._own:
            self._servers.append(await self._serve(each))

    def follow(self, descriptor: int) -> None:
        """Takes orders from a pipe: lines of the numbers of the spares to accept from."""
        loop = asyncio.get_running_loop()
        os.set_blocking(descriptor, False)
        pending = b""

        def read() -> None:
            nonlocal pending
            try:
                data = os.read(descriptor, _LINE_BYTES)
            except BlockingIOError:
                return
            if not data:
                self._unfollow()
                return
            *lines, pending = (pending + data).split(b"\n")
            if lines:  # each says all: only the last one counts
                self.cover(int(number) for number in lines[-1].split(b",") if number)

        def unfollow() -> None:
            self._unfollow = lambda: None
            loop.remove_reader(descriptor)
            os.close(descriptor)

        self._unfollow = unfollow
        loop.add_reader(descriptor, read)

    def cover(self, numbers: Iterable[int]) -> None:
        """Accepts from these spares and from no others, very soon."""
        self._wanted = frozenset(numbers) & self._spares.keys()
        if self._work is None and not self._closed:
            self._work = asyncio.ensure_future(self._adapt())

    async def leave(self) -> None:
        """Accepts no more in a moment, and leaves nobody behind in a queue that ends.

        Where all workers go, the last one that holds a socket ends it, and resets what waits
        there. So each lets go of the others' sockets first, and goes on with its own for long
        enough that the others have let go of them: it empties their queues, and then closes them.
        """
        self._let_go()
        await asyncio.sleep(LINGER_S)
        # In one step: what connects between the loop's own look at the queue and the end of it
        # would be reset.
        last = [client for own in self._own for client in _waiting(own)]
        self.close()
        if last:
            await asyncio.wait(
                [asyncio.ensure_future(self._take(each)) for each in last], timeout=_GREETING_S
            )

    def close(self) -> None:
        """Accepts no more; what waits in the queues is for others."""
        self._let_go()
        for server in self._servers:
            server.close()
        self._servers.clear()

    def _let_go(self) -> None:
        """Accepts from the own sockets alone, whatever the supervisor says."""
        self._closed = True
        self._unfollow()
        for server in self._covering.values():
            server.close()
        for spare in self._spares.values():
            spare.close()
        self._covering.clear()

    async def _adapt(self) -> None:
        try:
            while not self._closed and self._covering.keys() != self._wanted:
                await self._step()
        except OSError as error:  # no descriptors left: the next order tries again
            logger.warning("The connections of a worker that is absent are not taken: %s", error)
        finally:
            self._work = None

    async def _step(self) -> None:
        for number in self._covering.keys() - self._wanted:
            self._covering.pop(number).close()
        for number in self._wanted - self._covering.keys():
            # A copy: to stop covering closes it, and the next time needs one again.
            server = await self._serve(self._spares[number].dup())
            if self._closed:
                server.close()
                return
            self._covering[number] = server


def _waiting(listener: socket.socket) -> Iterator[socket.socket]:
    """Accepts whoever waits in a queue."""
    with contextlib.suppress(OSError):  # nobody more, or no descriptor for them
        while True:
            yield listener.accept()[0]


def inherited(contract: Contract) -> tuple[list[socket.socket], dict[int, socket.socket]]:
    """The own sockets and the spares that a supervisor has handed over.

    A script's children do not inherit them: they would keep the port.
    """
    return [_take(fd) for fd in contract.listen_fd], {fd: _take(fd) for fd in contract.spare_fd}


def _take(descriptor: int) -> socket.socket:
    os.set_inheritable(descriptor, False)
    return socket.socket(fileno=descriptor)


def close_all(sockets: Iterable[socket.socket]) -> None:
    """Closes sockets that nobody accepts from."""
    for each in sockets:
        with contextlib.suppress(OSError):
            each.close()

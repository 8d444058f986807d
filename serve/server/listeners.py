"""The listening sockets of one address: as many for each worker as for every other.

The kernel spreads new connections over sockets that share an address by SO_REUSEPORT, and each has
a queue of its own, so that no worker wakes for a connection that another takes. A socket is never
closed while the address is used, for what waits in its queue, or shakes hands, would be reset: when
workers become fewer, each gets several sockets (docs/adr/0043).
"""

from __future__ import annotations

import socket
import sys
from typing import TYPE_CHECKING

from scoring.errors import TargetError

if TYPE_CHECKING:
    from collections.abc import Mapping

BACKLOG = 2048

# Elsewhere the option lets sockets share an address, and gives one of them all the connections.
_SPREADS = sys.platform == "linux"
_MOST_SOCKETS = 256


class Listeners:
    """The sockets of one address; the first one listens from the start.

    Args:
        host: To listen on.
        port: 0 for a free one.

    Raises:
        TargetError: The host does not resolve, or the port is taken or not allowed.
    """

    def __init__(self, host: str, port: int) -> None:
        self.host = host
        self._sockets = [open_listener(host, port)]
        self._silent: list[socket.socket] = []
        self.port: int = self._sockets[0].getsockname()[1]

    @property
    def sockets(self) -> tuple[socket.socket, ...]:
        """All of them."""
        return tuple(self._sockets)

    def shares(self, workers: int) -> list[tuple[socket.socket, ...]]:
        """Divides the sockets among this many workers, making more where that is needed.

        New ones are bound and do not listen yet: until `listen` no connection goes to them.

        Returns:
            For each worker the sockets that it is to accept from. Where no more sockets can be
            had, several workers have the same.
        """
        while len(self._sockets) < wanted(len(self._sockets), workers):
            beside = _join(self._sockets[0])
            if beside is None:
                break
            self._sockets.append(beside)
            self._silent.append(beside)
        here = self._sockets
        return [tuple(here[n::workers]) or (here[n % len(here)],) for n in range(workers)]

    def listen(self) -> None:
        """Lets connections come to all sockets: whoever accepts from them is ready."""
        for beside in self._silent:
            beside.listen(BACKLOG)
        self._silent.clear()

    def close(self) -> None:
        """Closes them; what waits in their queues is reset."""
        for each in self._sockets:
            each.close()


def wanted(present: int, workers: int) -> int:
    """How many sockets an address should have: none is ever closed, and all workers get alike."""
    if not _SPREADS:
        return 1
    even = -(-present // workers) * workers
    return even if even <= max(_MOST_SOCKETS, workers) else present


def cover(own: Mapping[int, tuple[int, ...]], present: set[int]) -> dict[int, tuple[int, ...]]:
    """What each present worker has to accept from in the place of those that are absent.

    Args:
        own: The descriptors of each worker's sockets, by its place.
        present: The places whose worker accepts.

    Returns:
        For each present place the descriptors of others' sockets, dealt out evenly.
    """
    served = {fd for place in present for fd in own[place]}
    orphans = sorted({fd for fds in own.values() for fd in fds} - served)
    places = sorted(present)
    return {place: tuple(orphans[n :: len(places)]) for n, place in enumerate(places)}


def open_listener(host: str, port: int) -> socket.socket:
    """A listening socket that has its address for itself; port 0 takes a free one.

    Raises:
        TargetError: The host does not resolve, or the port is taken or not allowed.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise TargetError(f"The host {host!r} cannot be listened on: {error.strerror}.") from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except (OSError, OverflowError) as error:
        listener.close()
        reason = getattr(error, "strerror", None) or str(error)
        raise TargetError(
            f"Port {port} on {host} cannot be opened: {reason}.",
            hint="End the process that listens there, or choose another port.",
        ) from error
    return listener


def _join(first: socket.socket) -> socket.socket | None:
    """Another socket on the address of the first; None where the system gives none.

    The first one was bound, and listened, without SO_REUSEPORT: a port that any other process has
    was refused then. From here on a process of the same user could join, as ours do.
    """
    beside = socket.socket(first.family, first.type, first.proto)
    try:
        first.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        beside.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        beside.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        beside.bind(first.getsockname())
        beside.setblocking(False)
    except OSError:
        beside.close()
        return None
    return beside

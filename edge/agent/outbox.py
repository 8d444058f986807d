"""What is to be said over the link, while there is one and while there is none."""

from __future__ import annotations

import collections
import contextlib
import socket
import threading
from collections.abc import Callable, Collection
from typing import Final, Generic, NamedTuple, TypeVar

from edge.protocol.topics import Kind

MOST_QUEUED: Final = 256

C = TypeVar("C")


def nothing(_: bool) -> None:
    """For those who do not want to know whether their message arrived."""


class Outgoing(NamedTuple):
    """A message to be sent.

    Attributes:
        kind: Of which topic.
        payload: Its bytes.
        sent: Told whether the broker has it.
    """

    kind: Kind
    payload: bytes
    sent: Callable[[bool], object] = nothing


class Ack(NamedTuple, Generic[C]):
    """A message from the broker that was dealt with.

    Attributes:
        connection: On which it came.
        mid: Its number there.
        qos: Its quality of service.
    """

    connection: C
    mid: int
    qos: int


class Outbox(Generic[C]):
    """Filled by any thread, emptied by the link's, which it wakes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._retained: dict[Kind, bytes] = {}
        self._fresh: dict[Kind, None] = {}
        self._queue: collections.deque[Outgoing] = collections.deque()
        self._acks: collections.deque[Ack[C]] = collections.deque()
        self._waker, self.woken = socket.socketpair()
        self._waker.setblocking(False)
        self.woken.setblocking(False)

    def close(self) -> None:
        """Frees what it has; whatever comes later is for nobody."""
        self._waker.close()
        self.woken.close()

    def wake(self) -> None:
        """Wakes the link."""
        with contextlib.suppress(OSError):  # full: it wakes anyway; closed: nobody is there
            self._waker.send(b"w")

    def slept(self) -> None:
        """The link is awake."""
        with contextlib.suppress(OSError):
            self.woken.recv(4096)

    def retain(self, kind: Kind, payload: bytes) -> None:
        """Keeps what is known of the device from now on, to be said now and on each connection."""
        with self._lock:
            self._retained[kind] = payload
            self._fresh[kind] = None
        self.wake()

    def renew(self) -> None:
        """Has all that is kept said again."""
        with self._lock:
            self._fresh |= dict.fromkeys(self._retained)

    def put(self, message: Outgoing) -> bool:
        """Queues a message; whether there was room."""
        with self._lock:
            if len(self._queue) >= MOST_QUEUED:
                return False
            self._queue.append(message)
        self.wake()
        return True

    def forget(self, kinds: Collection[Kind]) -> None:
        """Drops what waits of these kinds: whoever said it says it again."""
        with self._lock:
            kept = [message for message in self._queue if message.kind not in kinds]
            self._queue = collections.deque(kept)

    def next(self) -> Outgoing | None:
        """What is to be sent next; it is not kept here any more."""
        with self._lock:
            if self._fresh:
                kind = next(iter(self._fresh))
                del self._fresh[kind]
                return Outgoing(kind, self._retained[kind])
            return self._queue.popleft() if self._queue else None

    def acknowledge(self, ack: Ack[C]) -> None:
        """Has the broker told that something was dealt with."""
        with self._lock:
            self._acks.append(ack)
        self.wake()

    def acks(self) -> list[Ack[C]]:
        """What is to be acknowledged; it is not kept here any more."""
        with self._lock:
            found = list(self._acks)
            self._acks.clear()
        return found

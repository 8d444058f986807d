"""Wakes a thread that waits for a socket, from any other thread."""

from __future__ import annotations

import contextlib
import socket
from typing import Final

_MOST_AT_ONCE: Final = 4096


class Doorbell:
    """One thread waits for `rung` beside its other sockets; any other rings."""

    def __init__(self) -> None:
        self._button, self.rung = socket.socketpair()
        self._button.setblocking(False)
        self.rung.setblocking(False)

    def ring(self) -> None:
        """Wakes the one that waits, or has it not wait the next time."""
        with contextlib.suppress(OSError):  # full: it wakes anyway; closed: nobody is there
            self._button.send(b"r")

    def heard(self) -> None:
        """Has it ring no more, until somebody rings again."""
        with contextlib.suppress(OSError):
            self.rung.recv(_MOST_AT_ONCE)

    def close(self) -> None:
        """Frees what it has."""
        self._button.close()
        self.rung.close()

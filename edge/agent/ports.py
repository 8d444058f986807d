"""The sockets of modules: held for the agent's life, so that no connection is lost in a switch."""

from __future__ import annotations

import socket
from typing import Final, Protocol

from scoring.errors import InUseError

_BACKLOG: Final = 1024


class Notes(Protocol):
    """Where the ports that were chosen are kept: the journal."""

    def note(self, key: str) -> str | None:
        """The text kept under a key."""
        ...

    def set_note(self, key: str, text: str) -> None:
        """Keeps a text under a key."""
        ...


class Ports:
    """Opens the sockets of modules.

    Args:
        host: The address that modules answer at.
        notes: Where the ports that were chosen are kept.
    """

    def __init__(self, host: str, notes: Notes) -> None:
        self._host = host
        self._notes = notes

    def open(self, module: str, port: int) -> socket.socket:
        """The socket of a module.

        Args:
            module: Its name.
            port: Its port; 0 for the one that it has had, or a free one.

        Raises:
            InUseError: Something else on the device has the port.
            StorageFullError: The port that was chosen cannot be kept.
        """
        if port:
            return self._listen(module, port)
        key = f"port.{module}"
        kept = self._notes.note(key) or ""
        if kept.isdigit():
            return self._listen(module, int(kept))
        chosen = self._free_port()
        self._notes.set_note(key, str(chosen))
        return self._listen(module, chosen)

    def _listen(self, module: str, port: int) -> socket.socket:
        found = self._socket()
        try:
            # Workers of an agent that was killed drain for a moment, and hold the port meanwhile.
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            found.bind((self._host, port))
            found.listen(_BACKLOG)
        except OSError as error:
            found.close()
            raise InUseError(
                f"The module {module} cannot have port {port}: {error.strerror}.",
                hint="Give it another port, or stop what has it; it is tried again by itself.",
            ) from error
        return found

    def _free_port(self) -> int:
        with self._socket() as found:  # without sharing: nobody else has this one
            found.bind((self._host, 0))
            return int(found.getsockname()[1])

    def _socket(self) -> socket.socket:
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        return socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)

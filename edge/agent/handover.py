"""Hands a worker in a container what other workers inherit: descriptors, over a UNIX socket.

The container sees the folder of that socket; `incontainer` is what asks there. Listening sockets
and pipes are the same wherever their holder lives: the module's socket stays the agent's, and
versions take over from each other in containers as processes do.
"""

from __future__ import annotations

import json
import os
import selectors
import shutil
import socket
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Final

NAME: Final = "agent.sock"
_PATIENCE_S: Final = 60.0
_MAY_READ: Final = 0o755
_MAY_ASK: Final = 0o666


class Handover:
    """Waits for one worker, and gives it what it needs.

    Args:
        folder: Of the socket; made, and removed at the end.
        contract: Name of a variable to a descriptor, of which copies are kept.
        env: The worker's environment beside that: it stands in no list of processes, and in no
            engine's records.

    Raises:
        OSError: The folder or the socket cannot be made.
    """

    def __init__(self, folder: Path, contract: Mapping[str, int], env: Mapping[str, str]) -> None:
        self._folder = folder
        folder.mkdir(parents=True)
        folder.chmod(_MAY_READ)
        self._listener = _listen(folder)
        self._letter = json.dumps({"fds": dict(contract), "env": dict(env)}).encode()
        self._descriptors = [os.dup(number) for number in contract.values()]
        self._over, self._end = os.pipe()
        self._thread = threading.Thread(target=self._give, name="handover", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Nobody comes any more."""
        os.close(self._end)  # which wakes the thread
        self._thread.join()
        os.close(self._over)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _give(self) -> None:
        try:
            with selectors.DefaultSelector() as selector:
                for source in (self._listener.fileno(), self._over):
                    selector.register(source, selectors.EVENT_READ)
                ready = {key.fd for key, _ in selector.select()}
            if self._listener.fileno() in ready:
                self._give_to(self._listener.accept()[0])
        except OSError:
            """It has gone: that it is not ready is seen elsewhere."""
        finally:
            self._listener.close()
            for number in self._descriptors:
                os.close(number)

    def _give_to(self, connection: socket.socket) -> None:
        with connection:
            connection.settimeout(_PATIENCE_S)
            socket.send_fds(connection, [b"\n"], self._descriptors)
            connection.sendall(self._letter)


def _listen(folder: Path) -> socket.socket:
    """Binds by a short way: paths of UNIX sockets have 107 bytes, and folders more."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            listener.bind(f"/proc/self/fd/{descriptor}/{NAME}")
        finally:
            os.close(descriptor)
        (folder / NAME).chmod(_MAY_ASK)  # the folder itself is shown to one container alone
        listener.listen(1)
    except OSError:
        listener.close()
        raise
    return listener

"""Becomes a worker with the deployment's port, inside the worker's container.

`python -I -S -c SOURCE SOCKET NAME COMMAND…`: it is sent as text, as `front.py` is. It asks the
front for the listening socket and a gate, hands both to the worker as a supervisor would
(docs/explanation/architecture.md has the contract), and becomes it. The connection to the front is
the worker's lifeline: where the front ends, the worker drains and goes, and the engine's restart
policy brings it back to join the next one.
"""

import os
import signal
import socket
import sys
import time

PATIENCE_S = 60.0
PAUSE_S = 0.05


def ask(path: str, name: str) -> tuple[socket.socket, list[int]]:
    """A connection to the front, and the socket and the gate that came over it."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.connect(path)
        connection.sendall(f"{name}\n".encode())
        _, descriptors, _, _ = socket.recv_fds(connection, 16, 2)
    except OSError:
        connection.close()
        raise
    if len(descriptors) != 2:  # noqa: PLR2004 - the socket and the gate
        connection.close()
        raise ConnectionError("the front has gone")
    return connection, descriptors


def join(path: str, name: str) -> tuple[socket.socket, list[int]]:
    """Waits for the front, which may start after this."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            return ask(path, name)
        except OSError as error:
            if time.monotonic() > deadline:
                sys.exit(f"fieldpost: nobody holds the deployment's port ({error})")
            time.sleep(PAUSE_S)


def main() -> None:
    """Joins and becomes the worker."""
    path, name, *command = sys.argv[1:]
    # The kernel shields process 1 from a signal without a handler; the worker sets its own.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    connection, (listener, gate) = join(path, name)
    lifeline = connection.detach()
    descriptors = {
        "LISTEN": listener,
        "GATE": gate,
        "LIFELINE": lifeline,
        "STATUS": os.dup(lifeline),
    }
    for what, number in descriptors.items():
        os.set_inheritable(number, True)
        os.environ[f"FIELDPOST_{what}_FD"] = str(number)
    os.execvp(command[0], command)  # noqa: S606 - the image's own entry point


if __name__ == "__main__":
    main()

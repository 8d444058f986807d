"""Becomes a worker of the agent, inside a container.

`python -I -S -c SOURCE SOCKET ROOT`: it is sent as text and runs in any image with Python 3.9 or
later, with the standard library alone. It takes descriptors and environment from the agent's socket
and becomes the package's worker.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import sys
from typing import Any

MOST_FDS = 16


def ask(path: str) -> tuple[list[int], dict[str, Any]]:
    """The descriptors and the letter that the agent has for this container."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.connect(path)
        _, descriptors, _, _ = socket.recv_fds(connection, 1, MOST_FDS)
        letter = b""
        while piece := connection.recv(65536):
            letter += piece
    return descriptors, json.loads(letter)


def place(descriptors: list[int], wanted: dict[str, int]) -> dict[str, int]:
    """Gives descriptors the numbers that the agent knows them by: its orders name them so."""
    above = max([*wanted.values(), *descriptors]) + 1
    moved = [fcntl.fcntl(number, fcntl.F_DUPFD, above) for number in descriptors]
    for number in descriptors:
        os.close(number)
    for source, target in zip(moved, wanted.values()):  # noqa: B905 - not known to Python 3.9
        os.dup2(source, target, inheritable=True)
        os.close(source)
    return wanted


def main() -> None:
    """Asks, and becomes the worker."""
    path, root = sys.argv[1:]
    # The kernel shields process 1 from a signal without a handler; the worker sets its own.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    descriptors, letter = ask(path)
    os.environ.update(letter["env"])
    for name, number in place(descriptors, letter["fds"]).items():
        os.environ[name] = str(number)
    boot = os.path.join(root, "runtime", "scoring", "boot.py")  # noqa: PTH118 - a quick start
    os.execv(sys.executable, [sys.executable, "-I", "-S", "-X", "utf8", boot, root])  # noqa: S606


if __name__ == "__main__":
    main()

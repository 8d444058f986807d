"""The control socket between the command line and a deployment's supervisor: JSON, line by line.

A client sends one request. The supervisor answers with any number of `{"event": "progress"}` and
one `done` or `failed`. Only the same user gets in: the folder is 0700 and the socket 0600.
"""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from scoring.errors import TargetError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SOCKET_NAME = "control.sock"
MAX_LINE_BYTES = 4 << 20

_LONGEST_ADDRESS = 100  # 108 on Linux, 104 elsewhere, with the final NUL


class SupervisorGoneError(Exception):
    """No supervisor listens, or it ended without an answer (internal to the target).

    Attributes:
        begun: It had begun with the request when it ended.
    """

    def __init__(self, message: str, *, begun: bool = False) -> None:
        super().__init__(message)
        self.begun = begun


class Answer(msgspec.Struct, frozen=True):
    """How a request ended.

    Attributes:
        ok: Whether it was done.
        result: What `done` carries.
        error: The error's document, for one that failed.
        detail: A traceback, for one that failed.
    """

    ok: bool
    result: dict[str, Any] = {}
    error: dict[str, Any] = {}
    detail: str = ""


@contextlib.contextmanager
def socket_address(folder: Path) -> Iterator[str]:
    """An address for the control socket in a folder, short enough for the kernel.

    An address of a UNIX socket has at most 108 bytes. A longer one goes through a descriptor of
    the folder, so that the socket stands in the folder however deep that is.
    """
    path = str(folder / SOCKET_NAME)
    if len(os.fsencode(path)) <= _LONGEST_ADDRESS:
        yield path
        return
    if not Path("/proc/self/fd").is_dir():
        raise TargetError(
            f"The path {path} is too long for a socket.",
            hint="Move the workspace to a folder with a shorter path.",
        )
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{descriptor}/{SOCKET_NAME}"
    finally:
        os.close(descriptor)


def listen(folder: Path) -> socket.socket:
    """The supervisor's socket; whatever an earlier one left in its place is removed."""
    (folder / SOCKET_NAME).unlink(missing_ok=True)
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        with socket_address(folder) as address:
            server.bind(address)
        server.listen(16)
    except OSError:
        server.close()
        raise
    finally:
        os.umask(before)
    server.setblocking(False)
    return server


def is_listening(folder: Path) -> bool:
    """Whether a supervisor listens in this folder now."""
    try:
        connect(folder, 5).close()
    except SupervisorGoneError:
        return False
    return True


def connect(folder: Path, timeout_s: float) -> socket.socket:
    """A connection to the supervisor of this folder.

    Raises:
        SupervisorGoneError: Nobody listens.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(timeout_s)
    try:
        with socket_address(folder) as address:
            connection.connect(address)
    except OSError as error:
        connection.close()
        raise SupervisorGoneError(str(error)) from error
    return connection


def ask(folder: Path, request: dict[str, Any], *, timeout_s: float) -> Answer:
    """Connects, sends a request and waits for its end; raises as `connect` and `converse` do."""
    return converse(connect(folder, timeout_s), folder, request, lambda _text: None)


def converse(
    connection: socket.socket,
    folder: Path,
    request: dict[str, Any],
    progress: Callable[[str], None],
) -> Answer:
    """Sends a request and waits for its end; closes the connection.

    Args:
        connection: From `connect`.
        folder: The deployment's run folder.
        request: `{"op": ...}`.
        progress: Takes the sentences on the way.

    Raises:
        SupervisorGoneError: It ended without an answer.
        TargetError: It is silent for longer than the connection's time limit.
    """
    begun = False

    def listen(text: str) -> None:
        nonlocal begun
        begun = True
        if text:  # empty ones only say that it is alive
            progress(text)

    with connection:
        try:
            connection.sendall(msgspec.json.encode(request) + b"\n")
            return _read_answer(connection, listen)
        except TimeoutError as error:
            raise TargetError(
                f"The supervisor of {folder.name} is silent.",
                hint=f"Look into {folder / 'supervisor.log'}; stop and start the deployment.",
            ) from error
        except (ConnectionError, EOFError) as error:
            raise SupervisorGoneError(str(error), begun=begun) from error


def _read_answer(connection: socket.socket, progress: Callable[[str], None]) -> Answer:
    with connection.makefile("rb") as lines:
        while line := lines.readline(MAX_LINE_BYTES):
            event = msgspec.json.decode(line, type=dict[str, Any])
            if event["event"] == "done":
                return Answer(ok=True, result=event.get("result") or {})
            if event["event"] == "failed":
                return Answer(ok=False, error=event["error"], detail=event.get("detail", ""))
            progress(str(event.get("text", "")))
    raise EOFError("the supervisor ended before it answered")

"""Processes that are ended by their id, and that end with the one that started them."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, Self

from scoring.errors import DeploymentFailedError

_PR_SET_PDEATHSIG: Final = 1
_END_S: Final = 5.0
_MOST_LOG: Final = 2000


class Child:
    """A process of ours.

    Args:
        arguments: Its command line; nothing secret is in it.
        log: What it prints goes here.
        environment: Over that of this process.

    Raises:
        DeploymentFailedError: It cannot be started.
    """

    def __init__(
        self, arguments: Sequence[str], log: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        self._name, self._log = Path(arguments[0]).name, log
        try:
            with log.open("wb") as file:
                self._process = subprocess.Popen(  # noqa: S603 - what we wrote ourselves
                    list(arguments),
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=file,
                    env={**os.environ, **(environment or {})},
                    start_new_session=True,  # Ctrl-C is for us: we end it when we have said goodbye
                    preexec_fn=_end_with(os.getpid()),  # noqa: PLW1509 - before any thread
                )
        except OSError as error:
            raise DeploymentFailedError(f"{self._name} cannot be started: {error}.") from error

    @property
    def pid(self) -> int:
        """Its id."""
        return self._process.pid

    def require_alive(self) -> None:
        """Raises DeploymentFailedError, with the end of its log, where it has ended."""
        status = self._process.poll()
        if status is not None:
            raise DeploymentFailedError(
                f"{self._name} ended with status {status}.", detail=self.log()
            )

    def log(self) -> str:
        """The end of what it printed."""
        with contextlib.suppress(OSError):
            return self._log.read_text(errors="replace")[-_MOST_LOG:]
        return ""

    def end(self) -> None:
        """Ends it, in peace if it goes."""
        if self._process.poll() is not None:
            return
        self._process.terminate()
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()


def _end_with(parent: int) -> Callable[[], None] | None:
    """Has the kernel end a child whose parent is killed; only Linux can."""
    try:
        prctl = ctypes.CDLL(None).prctl
    except (OSError, AttributeError):
        return None

    def set_signal() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it was killed before that
            os._exit(1)

    return set_signal

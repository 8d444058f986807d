"""What runs packages, as the supervisor knows it: processes, or containers."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from edge.agent.throttle import Stop
from edge.protocol.messages import Failure, Module

Ended = Callable[["Running", Failure], None]
"""Called once, from any thread, when something that runs has ended, whoever ended it."""

Ready = Callable[["Running"], None]
"""Called once, from any thread, when something that runs is ready to answer."""


class Running(Protocol):
    """A package that runs, or is about to.

    Attributes:
        run: What it is.
        port: Its own port on the loopback interface, for probes.
    """

    run: Module
    port: int

    @property
    def alive(self) -> bool:
        """Whether it has not ended."""
        ...

    @property
    def is_ready(self) -> bool:
        """Whether it has said that it can answer, and has not ended."""
        ...

    def wait_ready(self, seconds: float, stop: Stop) -> None:
        """Waits until it is ready.

        Raises:
            DeploymentFailedError: It has failed, or ended.
            DeadlineExceededError: It takes longer.
            StoppedError: It is not wanted any more.
        """
        ...

    def accept(self) -> None:
        """Has it accept connections from the module's own port, too, as soon as it is ready."""
        ...

    def drain(self, seconds: float) -> None:
        """Has it answer what it has begun, and go; ends it where that takes longer; waits."""
        ...

    def kill(self) -> None:
        """Ends it at once, with whatever it has started; waits."""
        ...


class Runner(Protocol):
    """Starts packages."""

    def start(
        self,
        module: str,
        run: Module,
        root: Path,
        listener: socket.socket,
        ready: Ready,
        ended: Ended,
    ) -> Running:
        """Starts a package, which answers on a port of its own at first.

        Args:
            module: Its name.
            run: What to run, and how.
            root: Where it is unpacked.
            listener: The module's own socket, which the caller keeps.
            ready: See `Ready`.
            ended: See `Ended`.

        Raises:
            DeploymentFailedError: It cannot be started.
        """
        ...

"""Workers as the agent follows them: their contract, what they say and print, how they end.

A worker gets a port of its own to be probed at (`LISTEN_FD`), and the module's socket as a spare
(`SPARE_FD`), from which it accepts as soon as it is told to (`COVER_FD`). It goes when the agent
goes (`LIFELINE_FD`). How it gets these descriptors is its launch's affair.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import socket
import subprocess
import threading
from collections.abc import Mapping
from typing import Any, Final, Protocol

from edge.agent.logs import ModuleLog
from edge.agent.runner import Ended, Ready
from edge.agent.throttle import Stop
from edge.protocol.messages import Failure, Module
from scoring.errors import DeadlineExceededError, DeploymentFailedError

_PIECE: Final = 64 * 1024
_MOST_STATUS: Final = 1 << 20
_KILLED_S: Final = 10.0
_BACKLOG: Final = 1024
_DETAIL: Final = 8192


class Launch(Protocol):
    """Starts one worker."""

    def begin(self, contract: Mapping[str, int], output: int) -> subprocess.Popen[bytes]:
        """Starts the process that is followed, in a group of its own.

        Args:
            contract: Name of a variable of the contract to the descriptor, which is open until
                this returns.
            output: Where what is printed goes.

        Raises:
            OSError: It cannot be started.
        """
        ...

    def kill(self) -> None:
        """Ends by force what does not end with the process."""
        ...

    def over(self) -> None:
        """Clears away: the process has ended."""
        ...


class WorkerProcess:
    """One worker, followed by a thread of its own. Made by `ProcessRunner.start`."""

    def __init__(
        self,
        run: Module,
        launch: Launch,
        listener: socket.socket,
        lifeline: int,
        log: ModuleLog,
        ready: Ready,
        ended: Ended,
    ) -> None:
        self.run = run
        self._launch = launch
        self._log, self._ready, self._ended = log, ready, ended
        self._settled, self._gone = threading.Event(), threading.Event()
        self._failure: Failure | None = None
        self._said = b""
        self.is_said_ready = False
        self._spare = listener.fileno()
        status, status_write = os.pipe()
        output, output_write = os.pipe()
        orders, self._orders = os.pipe()
        os.set_blocking(self._orders, False)
        own = _own_socket()
        self.port = int(own.getsockname()[1])
        theirs = (status_write, output_write, orders)
        contract = {
            "FIELDPOST_LISTEN_FD": own.fileno(),
            "FIELDPOST_SPARE_FD": self._spare,
            "FIELDPOST_COVER_FD": orders,
            "FIELDPOST_STATUS_FD": status_write,
            "FIELDPOST_LIFELINE_FD": lifeline,
        }
        try:
            self._process = launch.begin(contract, output_write)
        except BaseException:
            for descriptor in (status, output, self._orders):
                os.close(descriptor)
            raise
        finally:
            own.close()
            for descriptor in theirs:
                os.close(descriptor)
        self._guard = threading.Lock()
        self._thread = threading.Thread(
            target=self._follow, args=(status, output), name=f"worker-{self.pid}", daemon=True
        )
        self._thread.start()

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it has not ended."""
        return not self._gone.is_set()

    @property
    def is_ready(self) -> bool:
        """Whether it can answer."""
        return self.alive and self.is_said_ready

    def wait_ready(self, seconds: float, stop: Stop) -> None:
        """Waits until it is ready; see `Running`."""
        with stop.waking(self._settled.set):
            settled = self._settled.wait(seconds)
            stop.check()
        if self.is_ready:
            return
        if not settled:
            raise DeadlineExceededError(
                f"The package {self.run.package} was not ready after {seconds:.0f} s.",
                hint="Give it a longer timeout_s, or look at its log.",
                detail=self._log.tail(_DETAIL),
            )
        self._gone.wait(_KILLED_S)
        failure = self._failure or Failure(code="deployment_failed", message="It has ended.")
        raise DeploymentFailedError(failure.message, detail=failure.detail)

    def accept(self) -> None:
        """Has it accept from the module's own port; see `Running`."""
        with self._guard, contextlib.suppress(OSError):  # it has gone, or hangs
            os.write(self._orders, b"%d\n" % self._spare)

    def drain(self, seconds: float) -> None:
        """Has it go; see `Running`."""
        self._signal(signal.SIGTERM)
        if not self._gone.wait(seconds):
            self.kill()

    def kill(self) -> None:
        """Ends it; see `Running`."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if self.alive:
                self._launch.kill()
                os.killpg(self.pid, signal.SIGKILL)
        self._gone.wait(_KILLED_S)

    def _signal(self, number: signal.Signals) -> None:
        if self.alive:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    # -- following it

    def _follow(self, status: int, output: int) -> None:
        ended = os.pidfd_open(self.pid)
        try:
            with selectors.DefaultSelector() as selector:
                for descriptor in (status, output):
                    os.set_blocking(descriptor, False)
                for descriptor in (status, output, ended):
                    selector.register(descriptor, selectors.EVENT_READ)
                self._read_all(selector, status, output, ended)
        finally:
            for descriptor in (status, output, ended):
                os.close(descriptor)
            self._finish()

    def _read_all(
        self, selector: selectors.BaseSelector, status: int, output: int, ended: int
    ) -> None:
        takers = {status: self._take_status, output: self._log.write}
        while True:
            ready = {key.fd for key, _ in selector.select()}
            for descriptor in ready & takers.keys():
                data = _read(descriptor)
                if data == b"":
                    selector.unregister(descriptor)
                elif data:
                    takers[descriptor](data)
            if ended in ready:
                for descriptor, take in takers.items():  # what it said last
                    take(_read(descriptor) or b"")
                return

    def _take_status(self, data: bytes) -> None:
        self._said = (self._said + data)[:_MOST_STATUS]
        if b"\n" not in self._said or self._settled.is_set():
            return
        line = self._said.partition(b"\n")[0]
        report = _report(line)
        if report.get("state") == "ready":
            self.is_said_ready = True
            self._settled.set()
            self._ready(self)
        else:
            self._failure = _failure(report)
            self._settled.set()

    def _finish(self) -> None:
        returned = self._process.wait()
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)  # what it has started and left
        self._launch.over()
        with self._guard:
            os.close(self._orders)
            self._orders = -1
        failure = self._failure or Failure(
            code="deployment_failed",
            message=f"The process has ended {_ending(returned)}.",
            detail=self._log.tail(_DETAIL),
        )
        self._failure = failure
        self._gone.set()
        self._settled.set()
        self._ended(self, failure)


def _own_socket() -> socket.socket:
    own = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    own.bind(("127.0.0.1", 0))
    own.listen(_BACKLOG)
    return own


def _read(descriptor: int) -> bytes | None:
    """What is there; None for nothing yet."""
    try:
        return os.read(descriptor, _PIECE)
    except BlockingIOError:
        return None


def _report(line: bytes) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _failure(report: dict[str, Any]) -> Failure:
    error = report.get("error")
    error = error if isinstance(error, dict) else {}
    return Failure(
        code=str(error.get("code", "deployment_failed"))[:100],
        message=str(error.get("message", "The worker did not say why it failed."))[:2000],
        detail=str(report.get("detail", ""))[-_DETAIL:],
    )


def _ending(returned: int) -> str:
    if returned >= 0:
        return f"with status {returned}"
    try:
        return f"by {signal.Signals(-returned).name}"
    except ValueError:
        return f"by signal {-returned}"

"""Packages as processes: the worker's contract from the side of a device.

A worker gets a port of its own to be probed at (`LISTEN_FD`), and the module's socket as a spare
(`SPARE_FD`), from which it accepts as soon as it is told to (`COVER_FD`). It goes when the agent
goes (`LIFELINE_FD`).
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from edge.agent import circuits
from edge.agent.logs import ModuleLog
from edge.agent.runner import Ended, Ready, Running
from edge.agent.throttle import Stop
from edge.protocol.messages import Failure, Module
from scoring.errors import DeadlineExceededError, DeploymentFailedError

_PIECE: Final = 64 * 1024
_MOST_STATUS: Final = 1 << 20
_KILLED_S: Final = 10.0
_BACKLOG: Final = 1024
_DETAIL: Final = 8192
_PASSED: Final = (
    *("PATH", "HOME", "USER", "LOGNAME", "TMPDIR"),
    *("LD_LIBRARY_PATH", "SSL_CERT_FILE", "SSL_CERT_DIR"),
)
_ENV_PREFIX: Final = "env."
_SERVER_PREFIX: Final = "server."


class ProcessRunner:
    """Starts packages as processes.

    Args:
        logs: Where what they print is kept; made where it is missing.
    """

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        # Nobody writes to it: it ends with this process, and every worker sees that.
        self._lifeline, self._lifeline_write = os.pipe()

    def log(self, module: str) -> ModuleLog:
        """What a module prints."""
        return ModuleLog(self._logs, module)

    def start(
        self,
        module: str,
        run: Module,
        root: Path,
        listener: socket.socket,
        ready: Ready,
        ended: Ended,
    ) -> Running:
        """Starts a package; see `Runner.start`."""
        small = circuits.is_served_small(run, root)
        command = circuits.command(root) if small else worker_command(root)
        try:
            return WorkerProcess(
                run, command, environment(run), listener, self._lifeline, self.log(module), ready,
                ended,
            )  # fmt: skip
        except OSError as error:
            raise DeploymentFailedError(
                f"The package {run.package} cannot be started: {error}.",
                hint="It is tried again by itself.",
            ) from error

    def close(self) -> None:
        """Has every worker that is left drain and go."""
        for descriptor in (self._lifeline_write, self._lifeline):
            with contextlib.suppress(OSError):
                os.close(descriptor)
        self._lifeline = self._lifeline_write = -1


class WorkerProcess:
    """One worker, followed by a thread of its own. Made by `ProcessRunner.start`."""

    def __init__(
        self,
        run: Module,
        command: list[str],
        env: Mapping[str, str],
        listener: socket.socket,
        lifeline: int,
        log: ModuleLog,
        ready: Ready,
        ended: Ended,
    ) -> None:
        self.run = run
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
            self._process = subprocess.Popen(  # noqa: S603 - the command is ours, never a shell's
                command,
                stdin=subprocess.DEVNULL,
                stdout=output_write,
                stderr=output_write,
                env={**env, **{name: str(number) for name, number in contract.items()}},
                pass_fds=tuple(contract.values()),
                start_new_session=True,
            )
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


def worker_command(root: Path) -> list[str]:
    """The command that runs a package with nothing of the device importable.

    Raises:
        DeploymentFailedError: No interpreter of the package's Python version is here.
    """
    path = root / "env" / "environment.json"
    try:
        python = str(msgspec.json.decode(path.read_bytes(), type=dict[str, Any])["python"])
    except (OSError, msgspec.DecodeError, KeyError) as error:
        raise DeploymentFailedError(f"{root} holds no package: {error}.") from error
    boot = root / "runtime" / "scoring" / "boot.py"
    return [_interpreter(python), "-I", "-S", "-X", "utf8", str(boot), str(root)]


def environment(run: Module) -> dict[str, str]:
    """The environment of a module's worker, of `env.NAME` and `server.NAME` settings."""
    found = {"LANG": "C.UTF-8"}
    found |= {name: os.environ[name] for name in _PASSED if name in os.environ}
    for key, value in run.settings.items():
        if key.startswith(_SERVER_PREFIX):
            found[f"FIELDPOST_SERVER_{key.removeprefix(_SERVER_PREFIX).upper()}"] = value
    for key, value in run.settings.items():
        if key.startswith(_ENV_PREFIX):
            found[key.removeprefix(_ENV_PREFIX)] = value
    return found


def _interpreter(version: str) -> str:
    if version == f"{sys.version_info.major}.{sys.version_info.minor}":
        return sys.executable
    found = shutil.which(f"python{version}")
    if found is None:
        raise DeploymentFailedError(
            f"The package needs Python {version}, and this device has none.",
            hint=f"Install it, or build the package with --python {sys.version_info.major}."
            f"{sys.version_info.minor}.",
        )
    return found


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

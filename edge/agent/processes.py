"""Packages as processes, or as containers where they are to be: what is started for each."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from edge.agent import circuits
from edge.agent.containers import Containers
from edge.agent.logs import ModuleLog
from edge.agent.runner import Ended, Ready, Running
from edge.agent.workers import Launch, WorkerProcess
from edge.protocol.messages import Module
from scoring.errors import DeploymentFailedError

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
        self._containers = Containers(logs.parent / "containers")
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
        try:
            return WorkerProcess(
                run, self._launch(run, root), listener, self._lifeline, self.log(module), ready,
                ended,
            )  # fmt: skip
        except OSError as error:
            raise DeploymentFailedError(
                f"The package {run.package} cannot be started: {error}.",
                hint="It is tried again by itself.",
            ) from error

    def _launch(self, run: Module, root: Path) -> Launch:
        if run.run == "container":
            return self._containers.launch(run, root, environment(run, {}))
        if circuits.is_served_small(run, root):
            return ProcessLaunch(circuits.command(root), environment(run))
        try:
            return ProcessLaunch(worker_command(root), environment(run))
        except DeploymentFailedError:
            if run.run == "process" or not self._containers.there:
                raise
            return self._containers.launch(run, root, environment(run, {}))

    def close(self) -> None:
        """Has every worker that is left drain and go."""
        for descriptor in (self._lifeline_write, self._lifeline):
            with contextlib.suppress(OSError):
                os.close(descriptor)
        self._lifeline = self._lifeline_write = -1


class ProcessLaunch:
    """A process of this device that inherits what it needs.

    Args:
        command: What is started.
        env: Its environment, but for the contract.
    """

    def __init__(self, command: list[str], env: Mapping[str, str]) -> None:
        self._command, self._env = command, env

    def begin(self, contract: Mapping[str, int], output: int) -> subprocess.Popen[bytes]:
        """See `Launch`."""
        return subprocess.Popen(  # noqa: S603 - the command is ours, never a shell's
            self._command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**self._env, **{name: str(number) for name, number in contract.items()}},
            pass_fds=tuple(contract.values()),
            start_new_session=True,
        )

    def kill(self) -> None:
        """See `Launch`: the whole group ends with it."""

    def over(self) -> None:
        """See `Launch`: nothing is left."""


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


def environment(run: Module, device: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The environment of a module's worker, of `env.NAME` and `server.NAME` settings.

    Args:
        run: How the module is to run.
        device: Where some variables are taken from that processes of this device need.
    """
    found = {"LANG": "C.UTF-8"}
    found |= {name: device[name] for name in _PASSED if name in device}
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

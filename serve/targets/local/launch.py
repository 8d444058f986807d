"""What the command line and a deployment's supervisor tell each other."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from scoring.errors import FieldpostError
from serve.server.restarts import Limits
from serve.server.spawning import METRICS_VARIABLE, WorkerSpec

EXIT_LOCKED = 75
"""Another supervisor has the deployment (EX_TEMPFAIL: try to reach that one)."""

LOG_FOLDER = "logs"
"""In the run folder."""


class SupervisorConfig(msgspec.Struct, frozen=True):
    """What a supervisor is started with, over a pipe: it may hold a password.

    Attributes:
        name: The deployment.
        folder: Its run folder.
        location: What `Registry` takes.
    """

    name: str
    folder: str
    location: str

    def __repr__(self) -> str:
        return f"SupervisorConfig({self.name!r}, {self.folder!r})"


class Launch(msgspec.Struct, frozen=True, kw_only=True):
    """A revision that is to answer.

    Attributes:
        revision: Its number.
        command: The worker's command line.
        env: The worker's whole environment. Secrets may stand in it.
        cwd: Where the worker starts.
        host: To listen on.
        port: 0 for the present one, else a free one.
        workers: Processes.
        ready_timeout_s: Until a worker has loaded its model.
        drain_timeout_s: For requests that a leaving worker has begun.
        max_restarts: Deaths of one worker within a minute that are answered by a restart.
        worker_max_mib: Memory beyond which a worker is replaced; 0 for no limit.
        tls: The workers speak TLS.
        activate: The revision is pending; False where the registry has it active already.
    """

    revision: int
    command: tuple[str, ...]
    env: dict[str, str]
    cwd: str
    host: str
    port: int
    workers: int = 1
    ready_timeout_s: float = 60.0
    drain_timeout_s: float = 30.0
    max_restarts: int = 5
    worker_max_mib: int = 0
    tls: bool = False
    activate: bool = True

    def spec(self, metrics: str) -> WorkerSpec:
        """How a worker is started.

        Args:
            metrics: The folder in which workers share their counters, unless the user names one.
        """
        env = {METRICS_VARIABLE: metrics, **self.env}
        return WorkerSpec(self.command, env, Path(self.cwd))

    def limits(self) -> Limits:
        """The limits of the pool."""
        return Limits(
            ready_timeout_s=self.ready_timeout_s,
            drain_timeout_s=self.drain_timeout_s,
            max_restarts=self.max_restarts,
            worker_max_mib=self.worker_max_mib,
        )

    def __repr__(self) -> str:
        return f"Launch(revision={self.revision}, activate={self.activate})"


def url_of(host: str, port: int, *, tls: bool = False) -> str:
    """The URL to reach a listener by; a wildcard address is reached over loopback."""
    scheme = "https" if tls else "http"
    shown = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)  # noqa: S104
    return f"{scheme}://[{shown}]:{port}" if ":" in shown else f"{scheme}://{shown}:{port}"


def port_of(url: str) -> int:
    """The port of a URL; 0 where there is none."""
    try:
        return urlsplit(url).port or 0
    except ValueError:
        return 0


def error_document(error: BaseException) -> dict[str, Any]:
    """An error as the control socket and the status carry it."""
    if isinstance(error, FieldpostError):
        return error.to_dict()
    return {"code": "internal", "message": f"{type(error).__name__}: {error}"}

"""Reaching the process behind a run folder, which is started where it is not there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_fixed

from scoring.errors import TargetError
from serve.registry.location import WORKSPACE_VARIABLE
from serve.targets.local import control
from serve.targets.local.control import SupervisorGoneError
from serve.targets.local.launch import EXIT_LOCKED

if TYPE_CHECKING:
    from serve.targets.base import Progress
    from serve.targets.local.control import Answer
    from serve.targets.local.launch import SupervisorConfig

DEPLOYMENTS = "serve.targets.local.daemon"
"""The module that is started for a deployment."""

_SILENCE_S = 30.0
_START_S = 30.0
_STDERR_BYTES = 1 << 20
_STDERR_SHOWN = 2000


def ask(
    folder: Path,
    config: SupervisorConfig,
    request: dict[str, Any],
    progress: Progress,
    *,
    module: str = DEPLOYMENTS,
) -> Answer:
    """Sends a request to the process behind a run folder; it is started where there is none.

    Args:
        folder: Made where it is missing, for this user alone.
        config: What a new process is told.
        request: See `control`.
        progress: Takes the sentences on the way.
        module: What a new process runs.

    Raises:
        SupervisorGoneError: It ended before it answered.
        TargetError: It cannot be started, or is silent.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    folder.chmod(0o700)
    for attempt in Retrying(
        retry=retry_if_exception(_is_worth_another),
        stop=stop_after_delay(_START_S),
        wait=wait_fixed(0.05),
        reraise=True,
    ):
        with attempt:
            _ensure(folder, config, module)
            connection = control.connect(folder, _SILENCE_S)
            return control.converse(connection, folder, request, progress)
    raise AssertionError  # the last attempt returns or raises


def stderr_tail(folder: Path) -> str:
    """What the process last said where nobody listens."""
    try:
        return (folder / "supervisor.log").read_text(errors="replace")[-_STDERR_SHOWN:]
    except OSError:
        return ""


def _is_worth_another(error: BaseException) -> bool:
    """Whether the supervisor was just coming or going, and had not begun with the request."""
    return isinstance(error, SupervisorGoneError) and not error.begun


def _ensure(folder: Path, config: SupervisorConfig, module: str) -> None:
    """Returns when a supervisor listens.

    Raises:
        SupervisorGoneError: Another one is just coming or going: try again.
        TargetError: It cannot be started.
    """
    if control.is_listening(folder):
        return
    status = _start_daemon(folder, config, module)
    if status == EXIT_LOCKED:
        raise SupervisorGoneError("another supervisor is about to listen")
    if status:
        raise TargetError(
            "The supervisor cannot be started.",
            hint=f"Look into {folder / 'supervisor.log'}.",
            detail=stderr_tail(folder),
        )


def _start_daemon(folder: Path, config: SupervisorConfig, module: str) -> int:
    """Starts a supervisor and waits until it is in the background; its exit status before that."""
    errors = folder / "supervisor.log"
    too_long = errors.exists() and errors.stat().st_size > _STDERR_BYTES
    with errors.open("wb" if too_long else "ab") as stream:
        run = subprocess.run(  # noqa: S603 - modules of our own
            [sys.executable, "-m", module],
            input=msgspec.json.encode(config),
            stdout=stream,
            stderr=stream,
            env=_daemon_environment(),
            start_new_session=True,
            check=False,
            timeout=_START_S,
        )
    return run.returncode


def _daemon_environment() -> dict[str, str]:
    """Without the workspace's URL, which may hold a password: it comes on stdin."""
    kept = {name: text for name, text in os.environ.items() if name != WORKSPACE_VARIABLE}
    return kept | {"PYTHONPATH": import_path(), "PYTHONSAFEPATH": "1"}


def import_path() -> str:
    """Where this very `serve` was imported from, before all else."""
    here = str(Path(__file__).parents[3])
    return os.pathsep.join([here, *filter(None, [os.environ.get("PYTHONPATH", "")])])

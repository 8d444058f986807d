"""Endpoints on this machine: the front's process is started, told, asked and ended here."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from scoring.errors import DeploymentFailedError, TargetError
from serve.endpoints.front.config import (
    FOLDER_VARIABLE,
    SETTINGS_VARIABLE,
    parse,
)
from serve.endpoints.front.stats import Report
from serve.targets.base import Status, ignore
from serve.targets.local import control, processes, starting
from serve.targets.local.control import SupervisorGoneError
from serve.targets.local.interpreter import base_environment
from serve.targets.local.launch import Launch, SupervisorConfig, port_of
from serve.targets.local.state import read_state

if TYPE_CHECKING:
    from serve.registry import Registry
    from serve.registry.records import Endpoint
    from serve.targets.base import Progress
    from serve.targets.local.control import Answer

MODULE = "serve.endpoints.daemon"
FOLDER = "endpoints"
"""Beside the run folders of deployments."""

_ASK_S = 10.0
_STOP_S = 60.0
_READY_S = 30.0


class LocalFronts:
    """The fronts of a workspace on this machine.

    Args:
        registry: The workspace's.
    """

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def check(self, settings: dict[str, str]) -> None:
        """Raises `UsageError` for a key or value that a front does not take."""
        parse(settings)

    def start(self, record: Endpoint, progress: Progress = ignore) -> str:
        """Makes the endpoint answer; nothing to do where it does with these settings.

        Returns:
            Its URL.

        Raises:
            DeploymentFailedError: The front did not become ready.
            TargetError: Its port, or its process, is not to be had.
        """
        folder = self._folder(record.name)
        config = SupervisorConfig(record.name, str(folder), self._registry.location.secret_text())
        request = {"op": "launch", "launch": msgspec.to_builtins(_launch(record, folder))}
        try:
            answer = starting.ask(folder, config, request, progress, module=MODULE)
        except SupervisorGoneError as error:
            raise DeploymentFailedError(
                f"The process of the endpoint {record.name!r} ended before it was ready.",
                hint=f"Look into {folder / 'supervisor.log'} and try again.",
                detail=starting.stderr_tail(folder),
            ) from error
        return str(_result(record.name, answer)["url"])

    def sync(self, record: Endpoint) -> None:
        """Lets the front follow the record now.

        Raises:
            TargetError: It cannot; it will follow by itself as soon as it can.
        """
        try:
            answer = control.ask(self._folder(record.name), {"op": "sync"}, timeout_s=_ASK_S)
        except SupervisorGoneError:
            return  # it is down: `show` says so, and a start reads the record
        _result(record.name, answer)

    def status(self, record: Endpoint) -> Status:
        """What really runs."""
        folder = self._folder(record.name)
        try:
            answer = control.ask(folder, {"op": "status"}, timeout_s=_ASK_S)
        except SupervisorGoneError:
            return self._without_process(record)
        except TargetError as error:
            return Status(state="down", url=record.address, note=error.message)
        found = msgspec.convert(answer.result, Status)
        return found if found.state != "stopped" else self._without_process(record)

    def report(self, record: Endpoint) -> Report | None:
        """What the front has counted; None where nobody can tell."""
        try:
            answer = control.ask(self._folder(record.name), {"op": "report"}, timeout_s=_ASK_S)
        except (SupervisorGoneError, TargetError):
            return None
        if not answer.ok:
            return None
        return msgspec.json.decode(str(answer.result["report"]), type=Report)

    def stop(self, record: Endpoint) -> None:
        """Answers what has begun, and ends the front."""
        folder = self._folder(record.name)
        grace_s = _ASK_S
        try:
            control.ask(folder, {"op": "stop"}, timeout_s=_STOP_S)
        except SupervisorGoneError:
            """Nobody to ask: only what it may have left is ended."""
        except TargetError:
            grace_s = 0
        state = read_state(folder)
        if state is not None and state.boot == processes.boot_id():
            for process in (state.supervisor, *state.workers):
                processes.end(process, grace_s)

    def remove(self, record: Endpoint) -> None:
        """Deletes the files of a stopped front."""
        shutil.rmtree(self._folder(record.name), ignore_errors=True)

    def _folder(self, name: str) -> Path:
        return self._registry.location.blobs.absolute() / FOLDER / name

    def _without_process(self, record: Endpoint) -> Status:
        if record.desired == "stopped":
            return Status(state="stopped", url=record.address)
        again = f"'fieldpost endpoint start {record.name}' brings it back."
        return Status(
            state="down",
            url=record.address,
            note=f"Nothing of it runs on this machine. {again}",
        )


def _launch(record: Endpoint, folder: Path) -> Launch:
    settings = parse(record.settings)
    env = base_environment() | {
        "PYTHONPATH": starting.import_path(),
        "PYTHONSAFEPATH": "1",
        FOLDER_VARIABLE: str(folder),
        SETTINGS_VARIABLE: msgspec.json.encode(settings).decode(),
    }
    return Launch(
        revision=record.generation,
        command=(sys.executable, "-m", "serve.endpoints.front.process"),
        env=env,
        cwd=str(folder),
        host=settings.host,
        port=settings.port or port_of(record.address),
        workers=settings.workers,
        ready_timeout_s=_READY_S,
        drain_timeout_s=settings.drain_timeout_s,
        tls=bool(settings.tls_cert),
    )


def _result(name: str, answer: Answer) -> dict[str, Any]:
    if answer.ok:
        return answer.result
    texts = {key: str(answer.error.get(key) or "") for key in ("hint", "where")}
    message = str(answer.error.get("message", "It failed without a reason."))
    raise TargetError(f"The endpoint {name!r}: {message}", **texts, detail=answer.detail)

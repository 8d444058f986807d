"""The local target: supervised processes on this machine that outlive the command."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec

from scoring.errors import (
    DeploymentFailedError,
    FieldpostError,
    InUseError,
    ServeError,
    TargetError,
)
from scoring.packages.unpack import unpack_package
from serve.registry import Registry
from serve.targets.base import (
    DeployRequest,
    DeployResult,
    Progress,
    Status,
    TargetContext,
    ignore,
    request_to_start,
)
from serve.targets.local import control, interpreter, processes, starting
from serve.targets.local.control import Answer, SupervisorGoneError
from serve.targets.local.launch import (
    LOG_FOLDER,
    Launch,
    SupervisorConfig,
    port_of,
)
from serve.targets.local.logs import read_log
from serve.targets.local.records import RegistryRecords
from serve.targets.local.settings import (
    LocalSettings,
    memory_limit,
    parse,
    speaks_tls,
    worker_environment,
)
from serve.targets.local.state import SavedState, read_state

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from serve.registry.records import Deployment

_SILENCE_S = 30.0
_STATUS_S = 5.0


class LocalTarget:
    """Runs packages as processes of this user on this machine.

    Args:
        context: What the workspace gives.
    """

    name: ClassVar[str] = "local"
    Settings: ClassVar[type[msgspec.Struct]] = LocalSettings

    def __init__(self, context: TargetContext) -> None:
        self._context = context

    def check_settings(self, settings: Mapping[str, Any]) -> None:
        """Raises `UsageError` for a key or value that the target does not take."""
        parse(settings)

    def deploy(self, request: DeployRequest, progress: Progress = ignore) -> DeployResult:
        """Makes the revision answer in place of the one before; see `Target.deploy`.

        Raises:
            DeploymentFailedError: It never became ready; the one before goes on answering.
            TargetError: The port, the interpreter or the supervisor is not to be had.
        """
        try:
            answer = self._launch(request, progress, activate=True)
        except FieldpostError as error:  # nothing of it has reached the supervisor's records
            self._record_failure(request, error)
            self._bring_back(request, progress)
            raise
        if not answer.ok:
            self._bring_back(request, progress)
        return _result(request, answer)

    def status(self, deployment: Deployment) -> Status:
        """What really runs: the word of the supervisor, or that there is none."""
        folder = self._folder(deployment.name)
        try:
            answer = control.ask(folder, {"op": "status"}, timeout_s=_STATUS_S)
        except SupervisorGoneError:
            return _status_without_supervisor(deployment, read_state(folder))
        except TargetError as error:
            saved = read_state(folder)
            alive = saved is not None and any(map(processes.is_alive, saved.workers))
            return Status(
                state="degraded" if alive else "down",
                revision=deployment.active,
                url=deployment.address,
                note=error.message,
                last_error=error.to_dict(),
            )
        found = msgspec.convert(answer.result, Status)
        if found.state != "stopped":
            return found
        without = _status_without_supervisor(deployment, None)
        return msgspec.structs.replace(
            without, note=found.note or without.note, last_error=found.last_error
        )

    def logs(
        self, deployment: Deployment, *, follow: bool = False, tail: int | None = None
    ) -> Iterator[str]:
        """Lines `TIME rREVISION/WORKER TEXT`; with `follow` until the iterator is closed."""
        return read_log(self._folder(deployment.name) / LOG_FOLDER, tail=tail, follow=follow)

    def stop(self, deployment: Deployment, progress: Progress = ignore) -> None:
        """Drains and ends the workers and the supervisor, and waits until they are gone."""
        folder = self._folder(deployment.name)
        grace_s = _STATUS_S
        try:
            progress("waiting for the requests that have begun")
            control.ask(folder, {"op": "stop"}, timeout_s=_SILENCE_S)
        except SupervisorGoneError:
            """Nobody to ask: only what it may have left is ended."""
        except TargetError as error:
            progress(f"{error.message} It is killed")
            grace_s = 0
        state = read_state(folder)
        if state is None or state.boot != processes.boot_id():
            return
        processes.end(state.supervisor, grace_s)
        for worker in state.workers:
            processes.end(worker, _STATUS_S)

    def start(self, deployment: Deployment, progress: Progress = ignore) -> DeployResult:
        """Brings the active revision back on its address; nothing to do where it runs.

        Raises:
            NotFoundError: No revision ever became active.
            DeploymentFailedError: It does not become ready any more.
        """
        request = request_to_start(deployment)
        return _result(request, self._launch(request, progress, activate=False))

    def remove(self, deployment: Deployment) -> None:
        """Deletes logs, asynchronous jobs and all else of a stopped deployment.

        Raises:
            InUseError: It runs.
        """
        folder = self._folder(deployment.name)
        if control.is_listening(folder):
            raise InUseError(
                f"The deployment {deployment.name!r} is running.",
                hint=f"Stop it first: 'fieldpost deployment stop {deployment.name}'.",
            )
        shutil.rmtree(folder, ignore_errors=True)

    def _launch(self, request: DeployRequest, progress: Progress, *, activate: bool) -> Answer:
        settings = parse(request.settings)
        progress("unpacking the package")
        root = self._unpack(request.package)
        launch = Launch(
            revision=request.revision,
            command=tuple(self._command(root)),
            env=worker_environment(
                settings, interpreter.base_environment(), self._folder(request.name)
            ),
            cwd=str(root),
            host=settings.host,
            port=settings.port or port_of(request.address),
            workers=settings.workers,
            ready_timeout_s=settings.ready_timeout_s,
            drain_timeout_s=settings.drain_timeout_s,
            max_restarts=settings.max_restarts,
            worker_max_mib=memory_limit(settings),
            tls=speaks_tls(settings),
            activate=activate,
        )
        return self._ask_supervisor(request.name, launch, progress)

    def _unpack(self, package: str) -> Path:
        return unpack_package(package, self._context.blobs, self._context.cache_dir)

    def _command(self, root: Path) -> list[str]:
        return interpreter.worker_command(root)

    def _ask_supervisor(self, name: str, launch: Launch, progress: Progress) -> Answer:
        folder = self._folder(name)
        config = SupervisorConfig(name, str(folder), self._context.location)
        request = {"op": "launch", "launch": msgspec.to_builtins(launch)}
        try:
            return starting.ask(folder, config, request, progress)
        except SupervisorGoneError as error:
            raise DeploymentFailedError(
                f"The supervisor of {name!r} ended before the revision was ready.",
                hint=f"Look into {folder / 'supervisor.log'} and deploy again.",
                detail=starting.stderr_tail(folder),
            ) from error

    def _record_failure(self, request: DeployRequest, error: FieldpostError) -> None:
        """For failures that no supervisor has recorded: it was never reached, or it was killed."""
        records = RegistryRecords(self._context.location, request.name)
        with contextlib.suppress(ServeError):  # it is recorded already, or cannot be
            records.fail(request.revision, error.message, error.detail)

    def _bring_back(self, request: DeployRequest, progress: Progress) -> None:
        """Starts the active revision where it was down before a deploy that has failed."""
        with contextlib.suppress(FieldpostError), Registry(self._context.location) as registry:
            deployment = registry.deployments.get(request.name)
            if deployment.active is not None and self.status(deployment).state == "down":
                progress(f"revision {deployment.active} was down: starting it again")
                self.start(deployment, progress)

    def _folder(self, name: str) -> Path:
        return self._context.run_dir.absolute() / name


def _result(request: DeployRequest, answer: Answer) -> DeployResult:
    """What the supervisor answered; a script's failure is raised as a failed deployment."""
    if answer.ok:
        return msgspec.convert(answer.result, DeployResult)
    texts = {key: str(answer.error.get(key) or "") for key in ("hint", "where")}
    message = str(answer.error.get("message", "It failed without a reason."))
    if answer.error.get("code") == TargetError.code:
        raise TargetError(message, **texts, detail=answer.detail)
    raise DeploymentFailedError(
        f"Revision {request.revision} of {request.name!r} did not become ready: {message}",
        **texts,
        detail=answer.detail,
    )


def _status_without_supervisor(deployment: Deployment, state: SavedState | None) -> Status:
    stopped = deployment.desired == "stopped"
    return Status(
        state="stopped" if stopped else "down",
        revision=deployment.active,
        url=deployment.address,
        note="" if stopped else _why_down(deployment, state),
    )


def _why_down(deployment: Deployment, state: SavedState | None) -> str:
    again = f"'fieldpost deployment start {deployment.name}' brings it back."
    if state is None:
        return f"Nothing of it runs on this machine. {again}"
    if state.boot != processes.boot_id():
        return f"The machine has restarted since. {again}"
    if state.ended:
        return f"Its supervisor has ended: {state.ended}. {again}"
    return f"Its supervisor (process {state.supervisor.pid}) was killed. {again}"

"""The targets `docker` and `podman`."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec

from scoring.errors import (
    DeploymentFailedError,
    FieldpostError,
    InUseError,
    ServeError,
    TargetError,
)
from serve.engines.finding import find_engine
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
from serve.targets.docker import home, logs, source, status
from serve.targets.docker.crew import Crew
from serve.targets.docker.launch import Launch, Launcher, Ready
from serve.targets.docker.names import Names
from serve.targets.docker.ports import url_of
from serve.targets.docker.settings import DockerSettings, parse
from serve.targets.docker.specs import LEAVE_S

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from serve.engines import Engine, Kind
    from serve.registry.records import Deployment


class DockerTarget:
    """Runs packages as containers of a Docker engine.

    Args:
        context: What the workspace gives.
    """

    name: ClassVar[str] = "docker"
    kind: ClassVar[Kind] = "docker"
    Settings: ClassVar[type[msgspec.Struct]] = DockerSettings

    def __init__(self, context: TargetContext) -> None:
        self._context = context
        self._engines: dict[str | None, Engine] = {}

    def check_settings(self, settings: Mapping[str, Any]) -> None:
        """Raises `UsageError` for a key or value that the target does not take."""
        parse(settings)

    def deploy(self, request: DeployRequest, progress: Progress = ignore) -> DeployResult:
        """Makes the revision answer in place of the one before; see `Target.deploy`.

        Raises:
            DeploymentFailedError: It never became ready; the one before goes on answering.
            TargetError: The engine, the port or the image is not to be had.
        """
        began = time.monotonic()
        try:
            settings = parse(request.settings)
            launcher, engine = self._launcher(request.name, settings, progress)
            self._require_home(request.name, engine)
            launcher.settle(self._record(request.name).active)
            launch = self._launch(request, settings, engine, progress)
            ready = launcher.prepare(launch)
            url = _url(engine, settings, ready)
            ready_s = time.monotonic() - began
            self._activate(launcher, request, ready, url, engine)
        except DeploymentFailedError as error:
            failure = _as_failure(request, error)
            self._record_failure(request, failure)
            raise failure from error
        except BaseException as error:
            self._record_failure(request, error)
            raise
        launcher.switch(ready, settings)
        return DeployResult(revision=request.revision, url=url, ready_s=ready_s)

    def status(self, deployment: Deployment) -> Status:
        """What really runs: the word of the engine, or that it does not answer."""
        try:
            crew = self._crew(deployment.name, parse(deployment.settings))
            seen = status.observe(crew, deployment)
            return seen if seen.state != "down" or seen.workers else self._lost(crew, seen)
        except TargetError as error:
            stopped = deployment.desired == "stopped"
            return Status(
                state="stopped" if stopped else "down",
                revision=deployment.active,
                url=deployment.address,
                note="" if stopped else f"{error.message} {error.hint}".strip(),
                last_error=None if stopped else error.to_dict(),
            )

    def logs(
        self, deployment: Deployment, *, follow: bool = False, tail: int | None = None
    ) -> Iterator[str]:
        """Lines `TIME rREVISION/WORKER TEXT`; with `follow` until the iterator is closed."""
        crew = self._crew(deployment.name, parse(deployment.settings))
        return logs.follow(crew, tail) if follow else logs.read(crew, tail)

    def stop(self, deployment: Deployment, progress: Progress = ignore) -> None:
        """Drains and ends the workers, and waits until they are gone; their logs stay."""
        settings = parse(deployment.settings)
        launcher, engine = self._launcher(deployment.name, settings, progress)
        home.require_home(self._context.location, deployment.name, engine)
        progress("waiting for the requests that have begun")
        launcher.stop(settings.drain_timeout_s + LEAVE_S)

    def start(self, deployment: Deployment, progress: Progress = ignore) -> DeployResult:
        """Brings the active revision back on its address; nothing to do where it runs.

        Raises:
            NotFoundError: No revision ever became active.
            DeploymentFailedError: It does not become ready any more.
        """
        began = time.monotonic()
        request = request_to_start(deployment)
        self._settle(deployment, progress)
        if self._runs(deployment):
            return DeployResult(revision=request.revision, url=deployment.address, ready_s=0.0)
        try:
            url = self._start(request, progress)
        except DeploymentFailedError as error:
            raise _as_failure(request, error) from error
        return DeployResult(revision=request.revision, url=url, ready_s=time.monotonic() - began)

    def remove(self, deployment: Deployment) -> None:
        """Deletes containers, logs and all else of a stopped deployment; images stay.

        Raises:
            InUseError: It runs.
        """
        crew = self._crew(deployment.name, parse(deployment.settings))
        members = crew.members()
        if any(each.is_up for each in members):
            raise InUseError(
                f"The deployment {deployment.name!r} is running.",
                hint=f"Stop it first: 'fieldpost deployment stop {deployment.name}'.",
            )
        crew.remove(members)
        crew.remove_volumes()
        home.forget(self._context.location, deployment.name)

    def _start(self, request: DeployRequest, progress: Progress) -> str:
        """Makes the containers anew: what is left of them may be of any state."""
        settings = parse(request.settings)
        launcher, engine = self._launcher(request.name, settings, progress)
        self._require_home(request.name, engine)
        launch = self._launch(request, settings, engine, progress)
        crew = self._crew(request.name, settings)
        crew.remove(crew.workers())
        ready = launcher.prepare(launch)
        url = _url(engine, settings, ready)
        with Registry(self._context.location) as registry:
            home.remember(registry, request.name, engine)
            registry.deployments.start(request.name)
            registry.deployments.set_address(request.name, url)
        launcher.switch(ready, settings)
        return url

    def _launch(
        self, request: DeployRequest, settings: DockerSettings, engine: Engine, progress: Progress
    ) -> Launch:
        image = source.obtain(engine, request.package, settings, self._context, progress)
        return Launch(request.revision, settings, image, request.address)

    def _activate(
        self, launcher: Launcher, request: DeployRequest, ready: Ready, url: str, engine: Engine
    ) -> None:
        """Records that the revision answers; where that cannot be done it never does."""
        try:
            with Registry(self._context.location) as registry:
                home.remember(registry, request.name, engine)
                # The address first: an active revision without one has no stable URL to keep.
                registry.deployments.set_address(request.name, url)
                registry.deployments.activate(request.name, request.revision)
        except BaseException:
            launcher.discard(ready)
            raise

    def _record_failure(self, request: DeployRequest, error: BaseException) -> None:
        message = error.message if isinstance(error, FieldpostError) else "It was interrupted."
        detail = error.detail if isinstance(error, FieldpostError) else ""
        with contextlib.suppress(ServeError), Registry(self._context.location) as registry:
            registry.deployments.fail(request.name, request.revision, message, detail)

    def _require_home(self, name: str, engine: Engine) -> None:
        """Raises where the deployment runs on another engine; one that is stopped may move."""
        if self._record(name).desired == "running":
            home.require_home(self._context.location, name, engine)

    def _lost(self, crew: Crew, seen: Status) -> Status:
        """The same status, where the engine was changed with a note that says so."""
        found = home.elsewhere(self._context.location, crew.own.deployment, crew.engine)
        if found is None:
            return seen
        return msgspec.structs.replace(seen, note=home.told_elsewhere(found, crew.engine))

    def _settle(self, deployment: Deployment, progress: Progress) -> None:
        """Finishes what a killed command has begun, where the deployment is to run."""
        if deployment.desired == "running":
            settings = parse(deployment.settings)
            launcher, _ = self._launcher(deployment.name, settings, progress)
            launcher.settle(deployment.active)

    def _runs(self, deployment: Deployment) -> bool:
        return deployment.desired == "running" and self.status(deployment).state == "running"

    def _launcher(
        self, name: str, settings: DockerSettings, progress: Progress
    ) -> tuple[Launcher, Engine]:
        crew = self._crew(name, settings)
        return Launcher(crew, progress), crew.engine

    def _crew(self, name: str, settings: DockerSettings) -> Crew:
        engine = self._engines.get(settings.engine)
        if engine is None:
            engine = find_engine(self.kind, settings.engine)
            self._engines[settings.engine] = engine
        return Crew(engine, Names(home.workspace_identity(self._context.location), name))

    def _record(self, name: str) -> Deployment:
        with Registry(self._context.location) as registry:
            return registry.deployments.get(name)


class PodmanTarget(DockerTarget):
    """Runs packages as containers of Podman, through its service."""

    name: ClassVar[str] = "podman"
    kind: ClassVar[Kind] = "podman"


def _url(engine: Engine, settings: DockerSettings, ready: Ready) -> str:
    return url_of(settings.host, ready.port, machine=engine.address, tls=settings.tls)


def _as_failure(request: DeployRequest, error: DeploymentFailedError) -> DeploymentFailedError:
    """The same error, with the revision in its message."""
    return DeploymentFailedError(
        f"Revision {request.revision} of {request.name!r} did not become ready: {error.message}",
        hint=error.hint,
        where=error.where,
        detail=error.detail,
    )

"""The target `edge`: a deployment of the workspace is a deployment of its fleet, by the same name.

The fleet's controller does the work; nothing here has to go on running. What is asked of another
target when it returns (that the package answers) takes a fleet hours: `deploy` begins the rollout,
and waits for its end where that is wished for.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar, Final, Protocol

import msgspec

from edge.controller import checking
from edge.controller.entities import OPEN, Rollout
from edge.controller.permits import SignedPermits
from edge.controller.records import Deploying, Fleet
from edge.protocol.messages import Module
from edge.security.place import security_of
from edge.target import status as statuses
from edge.target.logs import read as read_logs
from edge.target.settings import EdgeSettings, Offer, parse
from edge.workspace import Deployment, Workspace, open_workspace
from scoring.deploying.status import DeployResult, Status
from scoring.errors import (
    DeploymentFailedError,
    FieldpostError,
    NotFoundError,
)

Progress = Callable[[str], None]

_POLL_S: Final = 0.5
_NOBODY_S: Final = 15.0


class Context(Protocol):
    """What a workspace gives its targets."""

    @property
    def location(self) -> str:
        """To open the workspace by; it may hold a password."""
        ...


class Request(Protocol):
    """A revision that is to run; `serve.targets.base.DeployRequest`."""

    @property
    def name(self) -> str:
        """The deployment."""
        ...

    @property
    def revision(self) -> int:
        """Its number in the workspace."""
        ...

    @property
    def package(self) -> str:
        """The digest."""
        ...

    @property
    def settings(self) -> dict[str, Any]:
        """As the user gave them."""
        ...


def ignore(_sentence: str) -> None:
    """A `Progress` for those who want none."""


class EdgeTarget:
    """Runs packages on the devices of a fleet.

    Args:
        context: What the workspace gives.
    """

    name: ClassVar[str] = "edge"
    Settings: ClassVar[type[msgspec.Struct]] = EdgeSettings

    def __init__(self, context: Context) -> None:
        self._location = context.location

    def check_settings(self, settings: Mapping[str, Any]) -> None:
        """Raises `UsageError` for a key or value that the target does not take."""
        parse(settings)

    def deploy(self, request: Request, progress: Progress = ignore) -> DeployResult:
        """Begins the rollout of a new revision of the fleet's deployment.

        Raises:
            UsageError: A setting is none, or devices run a later release already.
            VerificationError: No signed metadata permits the package.
            DeploymentFailedError: With `wait`: the rollout was halted or ended.
        """
        began = time.monotonic()
        with self._opened() as (found, fleet):
            records = found.registry.deployments
            try:
                offer = parse(request.settings)
                made = _begin(found, fleet, request.name, request.package, offer)
                progress(_said(made))
                if offer.wait:
                    _wait(fleet, made.rollout.id, progress)
            except FieldpostError as error:
                records.fail(request.name, request.revision, error.message)
                raise
            except KeyboardInterrupt:  # nobody waits any more, and the rollout goes on
                records.activate(request.name, request.revision)
                raise
            records.activate(request.name, request.revision)
        ready_s = round(time.monotonic() - began, 3)
        return DeployResult(revision=request.revision, url="", ready_s=ready_s)

    def status(self, deployment: Deployment) -> Status:
        """What devices run, as they have told the controller."""
        with self._opened() as (_, fleet):
            return statuses.observe(deployment, fleet, time.time())

    def logs(
        self, deployment: Deployment, *, follow: bool = False, tail: int | None = None
    ) -> Iterator[str]:
        """What happened, then the end of each device's log; with `follow` what happens next."""
        with self._opened() as (_, fleet):
            yield from read_logs(fleet, deployment.name, _module_of(deployment), follow, tail)

    def stop(self, deployment: Deployment, progress: Progress = ignore) -> None:
        """Takes the deployment from all devices: those that are away stop it when they are back."""
        with self._opened() as (_, fleet):
            try:
                rollout = fleet.rollout(deployment.name).rollout
                if rollout.state in OPEN:
                    fleet.abort(deployment.name)
                    progress(f"The rollout {rollout.id} is aborted.")
                fleet.remove_deployment(deployment.name)
            except NotFoundError:
                return  # it is gone already
            progress("Devices stop it as soon as they hear of that.")

    def start(self, deployment: Deployment, progress: Progress = ignore) -> DeployResult:
        """Gives the active revision to the fleet again; nothing to do where it has it.

        Raises:
            NotFoundError: No revision was ever rolled out.
        """
        active = deployment.active_revision
        if active is None:
            raise NotFoundError(
                f"The deployment {deployment.name!r} has no revision to start.",
                hint=f"Deploy one: 'fieldpost deploy {deployment.name} --package REF'.",
            )
        with self._opened() as (found, fleet):
            offer = parse(active.settings)
            if not _has(fleet, deployment.name, active.package):
                made = _begin(found, fleet, deployment.name, active.package, offer)
                progress(_said(made))
            found.registry.deployments.start(deployment.name)
        return DeployResult(revision=active.number, url="", ready_s=0.0)

    def remove(self, deployment: Deployment) -> None:
        """Leaves nothing of a stopped deployment in the fleet."""
        self.stop(deployment)

    @contextmanager
    def _opened(self) -> Iterator[tuple[Workspace, Fleet]]:
        with open_workspace(self._location) as found:
            yield found, Fleet(found.registry.database)


def _module_of(deployment: Deployment) -> str:
    active = deployment.active_revision
    return parse(active.settings).module if active is not None else "main"


def _has(fleet: Fleet, name: str, package: str) -> bool:
    """Whether the newest revision in the fleet is of this package, and not taken back."""
    try:
        revision, rollout = fleet.revision(name), fleet.rollout(name).rollout
    except NotFoundError:
        return False
    packages = {module.package for module in revision.modules.values()}
    return rollout.state != "aborted" and packages == {package}


def _begin(found: Workspace, fleet: Fleet, name: str, package: str, offer: Offer) -> Deploying:
    release = SignedPermits(security_of(found).repository).release(package)
    module = Module(
        package=package,
        release=release,
        port=offer.port,
        settings=offer.settings,
        run=offer.run,
        soak=offer.soak,
        timeout_s=offer.timeout_s,
    )
    checking.require_later(fleet.devices(offer.condition), {offer.module: module})
    return fleet.deploy(name, {offer.module: module}, condition=offer.condition, **offer.more)


def _said(made: Deploying) -> str:
    count = len(made.members)
    if not count:
        return f"{made.rollout.id}: no device matches now; those that come to match get it."
    return f"{made.rollout.id} goes to {count} devices in {made.rollout.waves} waves."


def _wait(fleet: Fleet, ref: str, progress: Progress) -> None:
    """Until the rollout ends, whoever ends it."""
    before, begun, warned = "", time.monotonic(), False
    while True:
        course = fleet.rollout(ref)
        rollout = course.rollout
        if rollout.state == "complete":
            return
        if rollout.state in {"halted", "aborted", "superseded"}:
            raise _failed(rollout)
        counts = ", ".join(f"{n} {state}" for state, n in course.counts().items())
        line = f"{rollout.id}: wave {rollout.wave + 1} of {rollout.waves}, {counts or 'no devices'}"
        if line != before:
            before = line
            progress(line)
        if rollout.wave < 0 and time.monotonic() - begun > _NOBODY_S and not warned:
            warned = True
            progress("No controller seems to lead this fleet: 'fieldpost fleet controller'.")
        time.sleep(_POLL_S)


def _failed(rollout: Rollout) -> DeploymentFailedError:
    return DeploymentFailedError(
        f"The rollout {rollout.id} is {rollout.state}. {rollout.note}".strip(),
        hint=f"See 'fieldpost rollout show {rollout.id}'; then resume or abort it.",
    )

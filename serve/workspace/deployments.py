"""Deployments: what the registry wishes and what the targets say really runs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from scoring.errors import NotFoundError, UsageError
from serve.provenance.policy import admit
from serve.registry import provenance
from serve.registry.names import check_name
from serve.targets.base import (
    DeployRequest,
    Difference,
    Previewing,
    Reaching,
    Route,
    Scaling,
    Status,
    Target,
    TargetContext,
    WorkerStatus,
    find_target,
)
from serve.targets.settings import mask_settings

if TYPE_CHECKING:
    from pathlib import Path

    from serve.asking import Protocol
    from serve.provenance.keys import PublicKey
    from serve.registry.records import Deployment, Package, Revision
    from serve.targets.kubernetes.export import Form
    from serve.workspace import Workspace
    from serve.workspace.exporting import Exported

Progress = Callable[[str], None]


def _silent(_sentence: str) -> None:
    """A `Progress` for those who want none."""


def _is_same(one: Revision, other: Revision) -> bool:
    """Whether two revisions would answer alike: going from one to the other changes nothing."""
    return (one.package, one.settings, one.target) == (other.package, other.settings, other.target)


class RevisionView(msgspec.Struct, frozen=True, kw_only=True):
    """A revision as a person reads it; see `serve.registry.records.Revision`."""

    number: int
    state: str
    package: str
    model: str
    created_at: str
    created_by: str
    rollback_of: int | None
    reason: str


class DeploymentView(msgspec.Struct, frozen=True, kw_only=True):
    """A deployment as it really is.

    Attributes:
        name: Its name.
        target: Where it runs.
        state: `running`, `starting`, `degraded`, `failed`, `down` or `stopped`.
        url: Where it answers; empty for nowhere.
        revision: The number of the revision that answers (or would); None for none.
        package: That revision's package.
        model: That package's model, NAME:VERSION.
        note: Why the state is not `running`.
        settings: Of that revision, with the values of `env.*` masked.
        workers: Its processes.
        restarts: Of all workers together.
        uptime_s: Since the revision answers.
        revisions: All revisions, oldest first.
        last_error: Why a worker or a deployment last failed.
    """

    name: str
    target: str
    state: str
    url: str
    revision: int | None
    package: str
    model: str
    note: str
    settings: dict[str, Any]
    workers: tuple[WorkerStatus, ...]
    restarts: int
    uptime_s: float
    revisions: tuple[RevisionView, ...]
    last_error: dict[str, Any] | None

    @property
    def certificate(self) -> str:
        """The file of the server's certificate on this machine; empty for none."""
        given = (self.settings.get(key) for key in ("tls_cert", "server.tls_cert"))
        return next((str(path) for path in given if path), "")


class DeploymentHandle:
    """A deployment that has been brought to run.

    Attributes:
        name: Its name.
        url: Where it answers.
    """

    def __init__(self, deployments: Deployments, name: str, url: str) -> None:
        self._deployments = deployments
        self.name = name
        self.url = url

    def score(
        self,
        document: object,
        *,
        protocol: Protocol = "score",
        model: str = "",
        api_key: str = "",
        later: bool = False,
    ) -> Any:
        """Sends one scoring request; see `serve.asking` for the choices and the errors."""
        from serve.asking import Asking, ask  # noqa: PLC0415 - clients are not needed to deploy

        certificate = self.view().certificate if self.url.startswith("https:") else ""
        how = Asking(
            protocol=protocol, model=model, api_key=api_key, later=later, certificate=certificate
        )
        with self._deployments.reach(self.name, self.url) as route:
            route.require(protocol)
            return ask(route.scoring, document, how)

    def view(self) -> DeploymentView:
        """The deployment as it is now."""
        return self._deployments.get(self.name)

    def stop(self) -> None:
        """Lets it answer what it has begun and ends it."""
        self._deployments.stop(self.name)


class Deployments:
    """What runs, and how to change it."""

    def __init__(self, workspace: Workspace) -> None:
        self._registry = workspace.registry
        self._packages = workspace.packages

    def deploy(
        self,
        name: str,
        package: Package | str,
        *,
        target: str = "local",
        settings: Mapping[str, str] | None = None,
        progress: Progress | None = None,
        rollback_of: int | None = None,
        verify_keys: Sequence[PublicKey] = (),
        force: bool = False,
    ) -> DeploymentHandle:
        """See `Workspace.deploy`."""
        found, chosen = self._check(name, package, target, settings or {}, verify_keys)
        revision = self._registry.deployments.create_revision(
            name,
            target=target,
            package=found.digest,
            settings=dict(settings or {}),
            by=provenance.user(),
            rollback_of=rollback_of,
        )
        request = DeployRequest(
            name=name,
            revision=revision.number,
            package=found.digest,
            settings=revision.settings,
            address=self._registry.deployments.get(name).address,
            force=force,
        )
        result = chosen.deploy(request, progress or _silent)
        return DeploymentHandle(self, name, result.url)

    def plan(
        self,
        name: str,
        package: Package | str,
        *,
        target: str,
        settings: Mapping[str, str],
        verify_keys: Sequence[PublicKey] = (),
    ) -> dict[str, object]:
        """What `deploy` would do, after the same checks."""
        found, _ = self._check(name, package, target, settings, verify_keys)
        try:
            last = self._registry.deployments.get(name).revisions[-1].number
        except NotFoundError:
            last = 0
        return {
            "name": name,
            "target": target,
            "revision": last + 1,
            "package": found.digest,
            "model": found.model_ref,
            "settings": mask_settings(settings),
        }

    def preview(
        self, name: str, package: Package | str, *, target: str, settings: Mapping[str, str]
    ) -> Sequence[dict[str, Any]] | None:
        """The objects that `deploy` would make; None where the target makes none."""
        found, chosen = self._check(name, package, target, settings, ())
        if not isinstance(chosen, Previewing):
            return None
        return chosen.preview(self._next(name, found.digest, settings))

    def difference(
        self,
        name: str,
        package: Package | str,
        *,
        target: str,
        settings: Mapping[str, str],
        force: bool = False,
    ) -> Sequence[Difference]:
        """What `deploy` would change of what the target has; nothing is changed.

        Raises:
            UsageError: The target has nothing that can be compared.
        """
        found, chosen = self._check(name, package, target, settings, ())
        if not isinstance(chosen, Previewing):
            raise UsageError(
                f"The target {target!r} has no objects to compare.",
                hint="Use --dry-run to see what a deploy would do.",
            )
        return chosen.difference(self._next(name, found.digest, settings, force=force))

    def scale(self, name: str, count: int, *, progress: Progress | None = None) -> DeploymentHandle:
        """Changes how many workers answer.

        Where the target cannot do that to what runs, the same package comes up as a new revision
        with so many workers, and no request is lost on the way.

        Raises:
            UsageError: It does not run, or something else sets the number.
            DeploymentFailedError: So many do not become ready.
        """
        record = self._registry.deployments.get(name)
        chosen, active = self._target(record.target), record.active_revision
        if active is None or record.desired != "running":
            raise UsageError(
                f"The deployment {name!r} does not run.",
                hint=f"Start it first: 'fieldpost deployment start {name}'.",
            )
        if isinstance(chosen, Scaling):
            result = chosen.scale(record, count, progress or _silent)
            return DeploymentHandle(self, name, result.url)
        if "workers" not in {each.name for each in msgspec.structs.fields(chosen.Settings)}:
            raise UsageError(f"The target {record.target!r} has no number of workers.")
        settings = {**active.settings, "workers": str(count)}
        return self.deploy(
            name, active.package, target=record.target, settings=settings, progress=progress
        )

    def get(self, name: str) -> DeploymentView:
        """A deployment as it really is.

        Raises:
            NotFoundError: There is none of that name.
        """
        record = self._registry.deployments.get(name)
        return self._view(record, self._target(record.target).status(record))

    @contextlib.contextmanager
    def reach(self, name: str, url: str = "") -> Iterator[Route]:
        """The way to a deployment from here, for the time of the block.

        Args:
            name: The deployment.
            url: Where it answers, where that is known; else it is what the registry has.

        Raises:
            NotFoundError: There is none of that name.
            TargetError: There is no way to it.
        """
        record = self._registry.deployments.get(name)
        chosen = self._target(record.target)
        if isinstance(chosen, Reaching):
            with chosen.reach(record) as found:
                yield found
        else:
            there = url or record.address
            yield Route(there, there)

    def list(self) -> list[DeploymentView]:
        """All deployments as they really are, by name."""
        return [
            self._view(record, self._target(record.target).status(record))
            for record in self._registry.deployments.list()
        ]

    def logs(self, name: str, *, follow: bool = False, tail: int | None = None) -> Iterator[str]:
        """Lines of the log, oldest first; with `follow` until the iterator is closed."""
        record = self._registry.deployments.get(name)
        return self._target(record.target).logs(record, follow=follow, tail=tail)

    def start(self, name: str, *, progress: Progress | None = None) -> DeploymentHandle:
        """Starts a stopped or lost deployment at its last good revision, on its own address."""
        record = self._registry.deployments.get(name)
        result = self._target(record.target).start(record, progress or _silent)
        return DeploymentHandle(self, name, result.url)

    def stop(self, name: str, *, progress: Progress | None = None) -> None:
        """Lets a deployment answer what it has begun, and ends it; its records stay."""
        record = self._registry.deployments.get(name)
        # The wish first: a command killed in between leaves a deployment that is to stop.
        self._registry.deployments.stop(name)
        self._target(record.target).stop(record, progress or _silent)

    def rollback_goal(self, name: str, to: int | None = None) -> Revision:
        """The revision that `rollback` would bring back.

        Args:
            name: The deployment.
            to: A revision's number; by default the newest one before the active one that has
                answered.

        Raises:
            UsageError: There is no such revision, or it has never answered.
        """
        record = self._registry.deployments.get(name)
        answered = [
            each
            for each in record.revisions
            if each.state == "superseded" and (to is None or each.number == to)
        ]
        active = record.active_revision
        if to is None and active is not None:
            other = [each for each in answered if not _is_same(each, active)]
            origin = active.rollback_of
            # After a rollback, the way back leads further into the past, not to what was left.
            answered = (
                [e for e in other if origin is None or e.number < origin] or other or answered
            )
        if not answered:
            raise UsageError(
                f"{name} has no earlier revision that has answered"
                + (f" with the number {to}." if to is not None else "."),
                hint=f"'fieldpost deployment show {name}' lists the revisions.",
            )
        return answered[-1]

    def rollback(
        self, name: str, *, to: int | None = None, progress: Progress | None = None
    ) -> DeploymentHandle:
        """Deploys an earlier revision's package and settings as a new revision."""
        goal = self.rollback_goal(name, to)
        return self.deploy(
            name,
            goal.package,
            target=goal.target,
            settings=goal.settings,
            progress=progress,
            rollback_of=goal.number,
        )

    def export(
        self,
        name: str | None,
        folder: Path,
        *,
        form: Form = "yaml",
        package: str | None = None,
        settings: Mapping[str, str] | None = None,
        dry_run: bool = False,
    ) -> Exported:
        """Writes a deployment, or a package, in the form of another tool. No file holds a secret.

        Args:
            name: The deployment, or how objects of the package are to be named; None for the
                model's name.
            folder: Made where it is missing; an earlier export in it is replaced.
            form: `yaml`, `kustomize`, `helm`, `kserve` or `ray`.
            package: A reference, in place of what the deployment runs.
            settings: As the target `kubernetes` takes them, over the deployment's own.
            dry_run: Write nothing.

        Raises:
            NotFoundError: There is no such deployment or package.
            UsageError: A setting is not valid, or nothing says where the image will be.
        """
        from serve.workspace.exporting import Exporter  # noqa: PLC0415 - imports targets

        exporter = Exporter(self._registry, self._packages)
        return exporter.export(name, folder, form, package, settings or {}, dry_run=dry_run)

    def delete(self, name: str) -> None:
        """Deletes the records and logs of a stopped deployment."""
        record = self._registry.deployments.get(name)
        self._registry.deployments.delete(name)
        self._target(record.target).remove(record)

    def _next(
        self,
        name: str,
        package: str,
        settings: Mapping[str, str],
        *,
        force: bool = False,
    ) -> DeployRequest:
        """What `deploy` would ask of the target now."""
        try:
            record = self._registry.deployments.get(name)
            last, address = record.revisions[-1].number, record.address
        except NotFoundError:
            last, address = 0, ""
        return DeployRequest(
            name=name,
            revision=last + 1,
            package=package,
            settings=dict(settings),
            address=address,
            force=force,
        )

    def _check(
        self,
        name: str,
        package: Package | str,
        target: str,
        settings: Mapping[str, str],
        verify_keys: Sequence[PublicKey],
    ) -> tuple[Package, Target]:
        """All that can be wrong before anything is written."""
        check_name(name, "deployment")
        chosen = self._target(target)
        chosen.check_settings(settings)
        found = self._packages.get(package) if isinstance(package, str) else package
        admit(self._registry, found.digest, verify_keys)
        return found, chosen

    def _target(self, name: str) -> Target:
        location = self._registry.location
        context = TargetContext(
            location=location.secret_text(),
            blobs=self._registry.blobs,
            cache_dir=location.blobs / "cache",
            run_dir=location.blobs / "run",
        )
        return find_target(name)(context)

    def _view(self, record: Deployment, status: Status) -> DeploymentView:
        number = status.revision if status.revision is not None else record.active
        current = record.revision(number) if number is not None else None
        package = current.package if current else ""
        return DeploymentView(
            name=record.name,
            target=record.target,
            state=status.state,
            url=status.url or record.address,
            revision=number,
            package=package,
            model=self._packages.model_of(package),
            note=status.note,
            settings=mask_settings(current.settings if current else record.settings),
            workers=status.workers,
            restarts=status.restarts,
            uptime_s=status.uptime_s,
            revisions=tuple(self._revision_view(each) for each in record.revisions),
            last_error=status.last_error,
        )

    def _revision_view(self, revision: Revision) -> RevisionView:
        return RevisionView(
            number=revision.number,
            state=revision.state,
            package=revision.package,
            model=self._packages.model_of(revision.package),
            created_at=revision.created_at,
            created_by=revision.created_by,
            rollback_of=revision.rollback_of,
            reason=revision.reason,
        )

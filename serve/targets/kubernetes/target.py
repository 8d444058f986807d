"""The target `kubernetes`."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec

from scoring.errors import (
    DeploymentFailedError,
    FieldpostError,
    InUseError,
    NotFoundError,
    ServeError,
    TargetError,
    UnreachableError,
    UsageError,
)
from serve.registry import Registry
from serve.targets.base import (
    DeployRequest,
    DeployResult,
    Difference,
    Progress,
    Route,
    Status,
    TargetContext,
    ignore,
    revision_to_start,
)
from serve.targets.kubernetes import diff, home, logs, rollout, status
from serve.targets.kubernetes.apply import Applier
from serve.targets.kubernetes.faults import ClusterError, MissingError
from serve.targets.kubernetes.kinds import name_of
from serve.targets.kubernetes.names import Names
from serve.targets.kubernetes.prune import owned_objects, prune
from serve.targets.kubernetes.publish import publish, require_place
from serve.targets.kubernetes.relay import out_of_reach, relay
from serve.targets.kubernetes.settings import KubernetesSettings, parse
from serve.targets.kubernetes.site import Rendered, Site
from serve.targets.kubernetes.waiting import Watch, look

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from serve.registry.records import Deployment, Revision
    from serve.targets.kubernetes.kinds import Object

_STATUS_S = 3.0
_GONE_S = 60.0
_LOOK_S = 0.5


class KubernetesTarget:
    """Runs packages as plain objects of a Kubernetes cluster.

    Args:
        context: What the workspace gives.
    """

    name: ClassVar[str] = "kubernetes"
    Settings: ClassVar[type[msgspec.Struct]] = KubernetesSettings

    def __init__(self, context: TargetContext) -> None:
        self._context = context

    def check_settings(self, settings: Mapping[str, Any]) -> None:
        """Raises `UsageError` for a key or value that the target does not take."""
        require_place(parse(settings))

    def deploy(self, request: DeployRequest, progress: Progress = ignore) -> DeployResult:
        """Makes the revision answer in place of the one before; see `Target.deploy`.

        Raises:
            DeploymentFailedError: It never became ready; the one before goes on answering.
            TargetError: The cluster refuses, or is not to be had.
        """
        began = time.monotonic()
        try:
            with self._site(request.name, parse(request.settings), progress) as site:
                self._require_home(site)
                rendered = self._roll_out(site, request, progress)
                url = status.url_of(rendered.settings, Names.of(request.name).base, site.namespace)
                self._activate(request, url)
                self._prune(site, rendered.objects, progress)
        except BaseException as error:
            self._record_failure(request, error)
            raise
        ready_s = time.monotonic() - began
        return DeployResult(revision=request.revision, url=url, ready_s=ready_s)

    def preview(self, request: DeployRequest) -> tuple[Object, ...]:
        """The objects that `deploy` would apply; values of Secrets are masked."""
        settings = parse(request.settings)
        with self._site(request.name, settings, ignore) as site:
            rendered = self._render(site, request)
        return tuple(map(diff.masked_secrets, rendered.objects))

    def difference(self, request: DeployRequest) -> list[Difference]:
        """What `deploy` would change in the cluster, by the cluster's own dry run.

        Where only the revision's number would, with the names that follow it, nothing does.
        """
        with self._site(request.name, parse(request.settings), ignore) as site:
            with contextlib.suppress(ClusterError, NotFoundError):  # what is to come says why
                active = self._record(request.name).active
                same = msgspec.structs.replace(request, revision=active or request.revision)
                found = self._compared(site, same)
                if all(each.change == "none" for each in found):
                    return found
            return self._compared(site, request)

    def _compared(self, site: Site, request: DeployRequest) -> list[Difference]:
        rendered = self._render(site, request)
        applier = Applier(site.cluster, site.owner, ignore, force=request.force)
        prepared = applier.prepare(rendered.objects)
        after = map(diff.without_default_replicas, prepared.live.values(), applier.check(prepared))
        kept = {(each["kind"], name_of(each)) for each in rendered.objects}
        leaving = [
            each
            for each in owned_objects(site.cluster, site.owner)
            if (each["kind"], name_of(each)) not in kept
        ]
        pairs = list(zip(prepared.live.values(), after, strict=True))
        return diff.differences([*pairs, *((each, None) for each in leaving)])

    def status(self, deployment: Deployment) -> Status:
        """What really runs: the word of the cluster, or that it does not answer."""
        try:
            with self._open(deployment, patience_s=_STATUS_S) as site:
                try:
                    view = look(site.place)
                    if site.owner.has(view.deployment):
                        return status.observe(deployment, view)
                    return status.gone(deployment, site.cluster.where)
                except MissingError:
                    return status.gone(deployment, site.cluster.where)
        except (TargetError, UsageError) as error:
            stopped = deployment.desired == "stopped"
            return Status(
                state="stopped" if stopped else "down",
                revision=deployment.active,
                url=deployment.address,
                note="" if stopped else f"{error.message} {error.hint}".strip(),
                last_error=None if stopped else error.to_dict(),
            )

    @contextlib.contextmanager
    def reach(self, deployment: Deployment) -> Iterator[Route]:
        """Its URL, or a way through the cluster's API where that is the name of a Service."""
        kept = home.find_home(self._context.location, deployment.name)
        service, active = out_of_reach(deployment.address), deployment.active_revision
        if kept is None or active is None or service is None:
            yield Route(deployment.address, deployment.address)
            return
        access, _ = home.access_for(parse(active.settings), kept)
        with relay(access, service) as route:
            yield route

    def logs(
        self, deployment: Deployment, *, follow: bool = False, tail: int | None = None
    ) -> Iterator[str]:
        """Lines `TIME rREVISION/POD TEXT`; with `follow` until the iterator is closed."""
        with self._open(deployment) as site:
            site.cluster.version()  # a cluster that does not answer is an error, not an empty log
            lines = logs.follow if follow else logs.read
            yield from lines(site.place, tail)

    def stop(self, deployment: Deployment, progress: Progress = ignore) -> None:
        """Takes all pods away, which drain first, and waits until they are gone.

        The Service and all else stay, so that a start finds its address again.
        """
        with self._open(deployment, progress) as site:
            if site.cluster.find("Deployment", site.place.name) is None:
                return
            revision = deployment.active_revision or deployment.revisions[-1]
            rendered = self._render_old(site, revision, replicas=0)
            applier = Applier(site.cluster, site.owner, progress, counts=True, yields=True)
            applier.apply(applier.prepare(rendered.objects))
            progress("waiting for the requests that have begun")
            self._until_gone(site, rendered.settings)

    def start(self, deployment: Deployment, progress: Progress = ignore) -> DeployResult:
        """Brings the active revision back on its address; nothing to do where it runs.

        Raises:
            NotFoundError: No revision ever became active.
            DeploymentFailedError: It does not become ready any more.
        """
        began = time.monotonic()
        active = revision_to_start(deployment)
        with self._open(deployment, progress) as site:
            rendered = self._render_old(site, active)
            with _named(active.number, deployment.name):
                applier = Applier(site.cluster, site.owner, progress, counts=True, yields=True)
                applier.apply(applier.prepare(rendered.objects))
                self._wait(site, rendered, progress)
            url = status.url_of(rendered.settings, site.place.name, site.namespace)
            self._mark_started(deployment.name, url)
            self._prune(site, rendered.objects, progress)
        ready_s = time.monotonic() - began
        return DeployResult(revision=active.number, url=url, ready_s=ready_s)

    def scale(
        self, deployment: Deployment, count: int, progress: Progress = ignore
    ) -> DeployResult:
        """Sets the number of pods of the revision that answers, without a new revision.

        It stays for later revisions, until one names `replicas` itself.

        Raises:
            UsageError: A scaler sets it, or the deployment does not run.
            DeploymentFailedError: As many do not become ready.
        """
        began = time.monotonic()
        active = deployment.active_revision
        if active is None or deployment.desired != "running":
            raise UsageError(
                f"The deployment {deployment.name!r} does not run.",
                hint=f"Start it first: 'fieldpost deployment start {deployment.name}'.",
            )
        if parse(active.settings).scales:
            raise UsageError(
                f"A scaler sets the number of pods of {deployment.name!r}.",
                hint="Deploy it with other limits: --set replicas=… --set max_replicas=….",
            )
        with self._open(deployment, progress) as site:
            rendered = self._render_old(site, active, replicas=count)
            applier = Applier(site.cluster, site.owner, progress, counts=True)
            prepared = applier.prepare(rendered.objects)
            _require_unscaled(prepared.objects, deployment.name)
            applier.apply(prepared)
            self._wait(site, rendered, progress)
            site.remember(rendered, replicas=count)
            url = status.url_of(rendered.settings, site.place.name, site.namespace)
        ready_s = time.monotonic() - began
        return DeployResult(revision=active.number, url=url, ready_s=ready_s)

    def remove(self, deployment: Deployment) -> None:
        """Deletes all objects of a stopped deployment; its image stays in the registry.

        Raises:
            InUseError: It runs.
        """
        if home.find_home(self._context.location, deployment.name) is None:
            return
        with self._open(deployment) as site:
            found = site.cluster.find("Deployment", site.place.name)
            if found is not None and (found.get("spec") or {}).get("replicas") != 0:
                runs = (found.get("status") or {}).get("readyReplicas")
                if runs and site.owner.has(found):
                    raise InUseError(
                        f"The deployment {deployment.name!r} is running.",
                        hint=f"Stop it first: 'fieldpost deployment stop {deployment.name}'.",
                    )
            prune(site.cluster, site.owner, (), ignore)
        home.forget(self._context.location, deployment.name)

    def _roll_out(self, site: Site, request: DeployRequest, progress: Progress) -> Rendered:
        """Brings the revision up; whatever ends that early, the one before is brought back."""
        progress(f"asking {_small(site.cluster.where)}")
        site.cluster.version()
        rendered = self._render(site, request)
        applier = Applier(site.cluster, site.owner, progress, force=request.force)
        prepared = applier.prepare(rendered.objects)
        applier.check(prepared)
        publish(rendered.image, rendered.settings, self._context, progress)
        named = "replicas" in request.settings
        site.remember(rendered, replicas=0 if named else None)
        try:
            with _named(request.revision, request.name):
                applier.apply(prepared)
                self._wait(site, rendered, progress)
        except BaseException as error:
            self._bring_back(site, progress, wait=isinstance(error, Exception))
            raise
        return rendered

    @staticmethod
    def _wait(site: Site, rendered: Rendered, progress: Progress) -> None:
        timeout_s = rendered.settings.ready_timeout_s
        Watch(site.place, rendered.revision, timeout_s, progress).until_ready()

    def _bring_back(self, site: Site, progress: Progress, *, wait: bool) -> None:
        """Applies the last good revision again; without one nothing of the failed one stays."""
        try:
            record = self._record(site.name)
            active, stopped = record.active_revision, record.desired == "stopped"
            if active is None:
                progress("removing what was made")
                prune(site.cluster, site.owner, (), progress)
                return
            progress(f"going back to revision {active.number}")
            rendered = self._render_old(site, active, replicas=0 if stopped else None)
            applier = Applier(site.cluster, site.owner, ignore, counts=True, yields=True)
            applier.apply(applier.prepare(rendered.objects))
            if wait and not stopped:
                self._wait(site, rendered, progress)
            prune(site.cluster, site.owner, rendered.objects, progress)
        except FieldpostError as error:
            progress(f"The revision before could not be brought back: {error.message}")

    def _render(self, site: Site, request: DeployRequest) -> Rendered:
        kept = site.home.replicas if site.home and "replicas" not in request.settings else 0
        settings = parse(request.settings)
        return site.render(request.revision, request.package, settings, replicas=kept or None)

    def _render_old(
        self, site: Site, revision: Revision, *, replicas: int | None = None
    ) -> Rendered:
        """A revision as it was, with the image that it had."""
        if replicas is None and site.home is not None:
            replicas = site.home.replicas or None
        return site.render(
            revision.number,
            revision.package,
            parse(revision.settings),
            image=site.image_of(revision.number),
            replicas=replicas,
        )

    def _until_gone(self, site: Site, settings: KubernetesSettings) -> None:
        deadline = time.monotonic() + settings.drain_timeout_s + settings.leave_s + _GONE_S
        while time.monotonic() < deadline:
            try:
                pods = site.cluster.list("Pod", labels=site.place.selector).items
                if not any(map(rollout.runs, pods)):
                    return
            except UnreachableError:
                """It may be back at the next look."""
            time.sleep(_LOOK_S)
        raise TargetError(
            f"The pods of {site.name!r} are still there, though they were told to end.",
            hint=f"Look at 'kubectl get pods -n {site.namespace}'.",
        )

    def _prune(self, site: Site, objects: Sequence[Object], progress: Progress) -> None:
        """What is left over does no harm, and goes with the next deploy."""
        try:
            prune(site.cluster, site.owner, objects, progress)
        except FieldpostError as error:
            progress(f"Not all that is left over could be removed: {error.message}")

    def _activate(self, request: DeployRequest, url: str) -> None:
        with Registry(self._context.location) as registry:
            registry.deployments.set_address(request.name, url)
            registry.deployments.activate(request.name, request.revision)

    def _mark_started(self, name: str, url: str) -> None:
        with Registry(self._context.location) as registry:
            registry.deployments.start(name)
            registry.deployments.set_address(name, url)

    def _record_failure(self, request: DeployRequest, error: BaseException) -> None:
        message = error.message if isinstance(error, FieldpostError) else "It was interrupted."
        detail = error.detail if isinstance(error, FieldpostError) else ""
        with contextlib.suppress(ServeError), Registry(self._context.location) as registry:
            registry.deployments.fail(request.name, request.revision, message, detail)

    def _require_home(self, site: Site) -> None:
        """Raises where the deployment is in another place; one that is stopped may not move."""
        if self._record(site.name).active is not None:
            home.require_home(site.name, site.home, site.cluster.access, site.namespace)

    def _record(self, name: str) -> Deployment:
        with Registry(self._context.location) as registry:
            return registry.deployments.get(name)

    def _open(
        self,
        deployment: Deployment,
        progress: Progress = ignore,
        patience_s: float | None = None,
    ) -> Site:
        settings = parse(deployment.settings)
        return Site(deployment.name, settings, self._context, progress, patience_s)

    def _site(self, name: str, settings: KubernetesSettings, progress: Progress) -> Site:
        return Site(name, settings, self._context, progress)


@contextlib.contextmanager
def _named(revision: int, name: str) -> Iterator[None]:
    """Puts the revision into the message of a failed deployment."""
    try:
        yield
    except DeploymentFailedError as error:
        raise DeploymentFailedError(
            f"Revision {revision} of {name!r} did not become ready: {error.message}",
            hint=error.hint,
            where=error.where,
            detail=error.detail,
        ) from error


def _require_unscaled(objects: Sequence[Object], name: str) -> None:
    """Raises where a scaler that is not the deployment's sets the number of pods."""
    if any(each["kind"] == "Deployment" and "replicas" not in each["spec"] for each in objects):
        raise UsageError(
            f"A scaler of somebody else's sets the number of pods of {name!r}.",
            hint="Change its limits: 'kubectl get hpa' lists it.",
        )


def _small(text: str) -> str:
    return text[:1].lower() + text[1:]

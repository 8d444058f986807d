"""A deployment where it is: its cluster, its objects, and what to do with both."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Self

import msgspec

from serve.targets.kubernetes import home as homes
from serve.targets.kubernetes import labels
from serve.targets.kubernetes.client import Cluster
from serve.targets.kubernetes.deployable import Deployable, facts_of
from serve.targets.kubernetes.home import Home
from serve.targets.kubernetes.kinds import find_kind
from serve.targets.kubernetes.names import Names
from serve.targets.kubernetes.objects.render import render
from serve.targets.kubernetes.ownership import Owner
from serve.targets.kubernetes.publish import find_image
from serve.targets.kubernetes.pulls import with_login
from serve.targets.kubernetes.waiting import Place

if TYPE_CHECKING:
    from types import TracebackType

    from serve.targets.base import Progress, TargetContext
    from serve.targets.kubernetes.kinds import Object
    from serve.targets.kubernetes.publish import Image
    from serve.targets.kubernetes.settings import KubernetesSettings


class Rendered(NamedTuple):
    """A revision as objects.

    Attributes:
        revision: Its number.
        settings: Its settings.
        image: Its image.
        objects: In the order in which they are applied.
    """

    revision: int
    settings: KubernetesSettings
    image: Image
    objects: tuple[Object, ...]


class Site:
    """One deployment in its cluster.

    Args:
        name: The deployment.
        settings: They say which cluster, where it is not remembered.
        context: What the workspace gives.
        progress: Takes sentences, warnings of the cluster among them.
        patience_s: For how long a cluster that does not answer is asked.
    """

    def __init__(
        self,
        name: str,
        settings: KubernetesSettings,
        context: TargetContext,
        progress: Progress,
        patience_s: float | None = None,
    ) -> None:
        self.name = name
        self.home = homes.find_home(context.location, name)
        access, self.namespace = homes.access_for(settings, self.home)
        self.cluster = Cluster(
            access, namespace=self.namespace, patience_s=patience_s, warn=progress
        )
        self.owner = Owner(homes.workspace_identity(context.location), name)
        self._context = context

    @property
    def place(self) -> Place:
        """Where its pods are."""
        base = Names.of(self.name).base
        return Place(self.cluster, base, labels.selector(base))

    def render(
        self,
        revision: int,
        package: str,
        settings: KubernetesSettings,
        *,
        image: str = "",
        replicas: int | None = None,
    ) -> Rendered:
        """The objects of a revision.

        Args:
            revision: Its number.
            package: Its package.
            settings: Its settings.
            image: Its image, where it is known; else it is put together.
            replicas: Instead of what the settings say, where no scaler sets it; 0 for a deployment
                that is stopped.
        """
        if image:
            settings = msgspec.structs.replace(settings, image=image, registry=None)
        found = find_image(package, settings, self._context)
        if replicas and not settings.scales:
            settings = msgspec.structs.replace(settings, replicas=replicas)
        of = Deployable(
            name=self.name,
            image=found.reference,
            package=facts_of(package, self._context.blobs),
            settings=settings,
            namespace=self.namespace,
            workspace=self.owner.workspace,
            revision=revision,
            monitors=settings.monitor == "auto" and self.cluster.has("ServiceMonitor"),
        )
        of, secrets = with_login(of)
        objects = (*secrets, *render(of))
        if replicas == 0:
            objects = tuple(_at_rest(each) for each in objects if not _is_scaler(each))
        return Rendered(revision, settings, found, objects)

    def remember(self, rendered: Rendered, replicas: int | None = None) -> None:
        """Records where the deployment is, the revision's image, and how many pods were wished."""
        images = dict(self.home.images) if self.home else {}
        images[str(rendered.revision)] = rendered.image.reference
        kept = self.home.replicas if self.home else 0
        self.home = Home(
            context=self.cluster.access.context,
            server=self.cluster.access.server,
            namespace=self.namespace,
            images=images,
            replicas=kept if replicas is None else replicas,
        )
        homes.remember(self._context.location, self.name, self.home)

    def image_of(self, revision: int) -> str:
        """The image that a revision had; empty where that is not known."""
        return self.home.images.get(str(revision), "") if self.home else ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self.cluster.close()


def _is_scaler(item: Object) -> bool:
    return item["kind"] in ("HorizontalPodAutoscaler", "ScaledObject")


def _at_rest(item: Object) -> Object:
    """A Deployment without pods."""
    if item["kind"] != find_kind("Deployment").kind:
        return item
    return {**item, "spec": {**item["spec"], "replicas": 0}}

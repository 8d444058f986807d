"""In which cluster a deployment is: the user may have turned to another context since.

The workspace remembers it, and which image each revision had: a base may have moved on since, and
what is brought back has to be what it was.
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import msgspec

from scoring.errors import UsageError
from serve.registry import Registry
from serve.targets.kubernetes.access import find_access

if TYPE_CHECKING:
    from serve.targets.kubernetes.access import Access
    from serve.targets.kubernetes.settings import KubernetesSettings

_IDENTITY = "identity"
_KEPT = 50


class Home(msgspec.Struct, frozen=True):
    """Where a deployment is.

    Attributes:
        context: Of the kubeconfig.
        server: The URL of the cluster's API.
        namespace: Its objects are there.
        images: Of revisions, by their number.
        replicas: That were set by `scale`; 0 leaves it to the settings.
    """

    context: str
    server: str
    namespace: str
    images: dict[str, str] = {}
    replicas: int = 0


def workspace_identity(location: str) -> str:
    """What tells the objects of this workspace from those of all others."""
    with Registry(location) as registry:
        found = registry.settings.get(_IDENTITY, str)
        if found is None:
            registry.settings.set(_IDENTITY, uuid.uuid4().hex)
            found = registry.settings.get(_IDENTITY, str)
        return found or ""


def find_home(location: str, name: str) -> Home | None:
    """Where the deployment is; None where it has never been anywhere."""
    with Registry(location) as registry:
        return registry.settings.get(_key(name), Home)


def remember(location: str, name: str, home: Home) -> None:
    """Records where the deployment is."""
    numbers = sorted(home.images, key=int)[-_KEPT:]
    kept = msgspec.structs.replace(home, images={each: home.images[each] for each in numbers})
    with Registry(location) as registry:
        if registry.settings.get(_key(name), Home) != kept:
            registry.settings.set(_key(name), kept)


def forget(location: str, name: str) -> None:
    """Records that it is nowhere any more."""
    with Registry(location) as registry:
        registry.settings.remove(_key(name))


def access_for(settings: KubernetesSettings, home: Home | None) -> tuple[Access, str]:
    """The cluster and namespace of a deployment.

    What the settings name counts; else what is remembered, whatever the current context is now.

    Raises:
        UsageError: There is no such context any more, or it leads to another cluster now.
        TargetError: No cluster is configured.
    """
    context = settings.context or (home.context if home else None)
    access = find_access(context)
    if home is not None and not settings.context and access.server != home.server:
        raise UsageError(
            f"The context {home.context!r} leads to another cluster than the deployment is on "
            f"({home.server}).",
            hint="Name the right one with --set context=NAME, or correct the kubeconfig.",
            where="context",
        )
    namespace = settings.namespace or (home.namespace if home else None) or access.namespace
    return access, namespace


def require_home(name: str, home: Home | None, access: Access, namespace: str) -> None:
    """Raises `UsageError` where a deployment that runs would come up in another place, too."""
    if home is None or (home.server, home.namespace) == (access.server, namespace):
        return
    raise UsageError(
        f"The deployment {name!r} runs in the namespace {home.namespace!r} of the context "
        f"{home.context!r}.",
        hint=f"Choose another name, or delete it first: 'fieldpost deployment stop {name}', then "
        "'delete'.",
        where="namespace",
    )


def _key(name: str) -> str:
    return f"kubernetes/{name}"

"""The Secret with which a cluster pulls images: made from this machine's own login, on request."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

import msgspec

from scoring.errors import RegistryDeniedError
from serve.distribution.reference import DEFAULT_REGISTRY, parse_reference
from serve.targets.kubernetes.objects.meta import Object, head

if TYPE_CHECKING:
    from serve.distribution.credentials import Credential
    from serve.targets.kubernetes.deployable import Deployable

_HUB = "https://index.docker.io/v1/"


def with_login(of: Deployable) -> tuple[Deployable, tuple[Object, ...]]:
    """The revision with a Secret of our own among those that it pulls with, and that Secret.

    Raises:
        RegistryDeniedError: This machine has no login that a cluster could use.
    """
    if not of.settings.pull_login:
        return of, ()
    from serve.distribution.credentials import Logins  # noqa: PLC0415 - for this only

    reference = parse_reference(of.image)
    found = Logins().find(reference)
    if found is None or not found.password:
        why = "only a token, which clusters do not take" if found else "no login to it"
        raise RegistryDeniedError(
            f"The cluster was to pull with this machine's login to {reference.registry}, and there "
            f"is {why}.",
            hint=f"Log in ('docker login {reference.registry}'), or make a Secret yourself and add "
            "--set pull_secret=NAME.",
            where="pull_login",
        )
    secret = _secret(of, reference.registry, found)
    names = [*filter(None, [of.settings.pull_secret]), secret["metadata"]["name"]]
    settings = msgspec.structs.replace(of.settings, pull_secret=",".join(names))
    return msgspec.structs.replace(of, settings=settings), (secret,)


def _secret(of: Deployable, registry: str, found: Credential) -> Object:
    host = _HUB if registry == DEFAULT_REGISTRY else registry
    token = base64.b64encode(f"{found.username}:{found.password}".encode()).decode()
    entry = {"username": found.username, "password": found.password, "auth": token}
    document = msgspec.json.encode({"auths": {host: entry}})
    metadata = head(of, "v1", "Secret")
    metadata["metadata"]["name"] += "-pull"
    return {
        **metadata,
        "type": "kubernetes.io/dockerconfigjson",
        "data": {".dockerconfigjson": base64.b64encode(document).decode()},
    }

"""Which engine a deployment is on: the user may have turned to another one since.

The workspace remembers it, so that a deployment is not taken for lost, or brought up a second time,
only because `DOCKER_HOST` or the context in use has changed.
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import msgspec

from scoring.errors import UsageError
from serve.registry import Registry

if TYPE_CHECKING:
    from serve.engines import Engine

_IDENTITY = "identity"
"""The workspace's setting that tells its containers from those of others."""


class Home(msgspec.Struct, frozen=True):
    """An engine.

    Attributes:
        identity: Of the engine itself.
        where: For messages.
    """

    identity: str
    where: str


def workspace_identity(location: str) -> str:
    """What tells the containers of this workspace from those of all others."""
    with Registry(location) as registry:
        found = registry.settings.get(_IDENTITY, str)
        if found is None:
            registry.settings.set(_IDENTITY, uuid.uuid4().hex)
            found = registry.settings.get(_IDENTITY, str)
        return found or ""


def remember(registry: Registry, name: str, engine: Engine) -> None:
    """Records that the deployment is on this engine."""
    home = Home(engine.identity, engine.where)
    if registry.settings.get(_key(name), Home) != home:
        registry.settings.set(_key(name), home)


def forget(location: str, name: str) -> None:
    """Records that it is nowhere any more."""
    with Registry(location) as registry:
        registry.settings.remove(_key(name))


def elsewhere(location: str, name: str, engine: Engine) -> Home | None:
    """The engine that the deployment is on, where that is another one than this."""
    with Registry(location) as registry:
        found = registry.settings.get(_key(name), Home)
    return found if found is not None and found.identity != engine.identity else None


def require_home(location: str, name: str, engine: Engine) -> None:
    """Raises `UsageError` where the deployment is on another engine than this one."""
    found = elsewhere(location, name, engine)
    if found is not None:
        raise UsageError(
            f"The deployment {name!r} is on another engine: {_small(found.where)}.",
            hint="Name that one with DOCKER_HOST or CONTAINER_HOST, or choose another name here.",
        )


def told_elsewhere(home: Home, engine: Engine) -> str:
    """Why nothing of a deployment is found here."""
    return (
        f"It was deployed to another engine: {_small(home.where)}. {engine.where} has nothing of "
        "it: name the other one with DOCKER_HOST or CONTAINER_HOST."
    )


def _small(where: str) -> str:
    return where[:1].lower() + where[1:]


def _key(name: str) -> str:
    return f"engine/{name}"

"""The Python API: everything that a command does is one call away."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from serve.registry import Registry
from serve.workspace.deployments import DeploymentHandle, Deployments, DeploymentView
from serve.workspace.environments import Environments
from serve.workspace.models import Models
from serve.workspace.packages import Packages

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from serve.registry.records import Package

__all__ = ["DeploymentHandle", "DeploymentView", "Workspace"]


class Workspace:
    """One team's registry: models, environments, packages and deployments.

    Args:
        location: A folder, or a `postgresql://` URL; by default `$FIELDPOST_WORKSPACE`, else
            `~/.fieldpost`. It is made where it does not exist.

    Attributes:
        models: Registered models.
        environments: Registered environments.
        packages: Built packages.
        deployments: What runs.

    Raises:
        WorkspaceError: It cannot be opened.
    """

    def __init__(self, location: str | os.PathLike[str] | None = None) -> None:
        self.registry = Registry(location)
        self.models = Models(self.registry)
        self.environments = Environments(self.registry)
        self.packages = Packages(self.registry, self.environments)
        self.deployments = Deployments(self.registry, self.packages)

    def deploy(
        self,
        name: str,
        package: Package | str,
        *,
        target: str = "local",
        settings: Mapping[str, str] | None = None,
        progress: Callable[[str], None] | None = None,
    ) -> DeploymentHandle:
        """Runs a package under a name; a further call is a new revision of it.

        Traffic moves to the new revision when it is ready, and nothing is dropped on the way.

        Args:
            name: The deployment's name.
            package: A package, or a reference to one.
            target: Where it runs.
            settings: The target's settings, such as `{"workers": "2"}`.
            progress: Called with a sentence at each step.

        Raises:
            DeploymentFailedError: It never became ready; the revision before goes on answering.
        """
        return self.deployments.deploy(
            name, package, target=target, settings=settings or {}, progress=progress
        )

    def plan_deployment(
        self, name: str, package: Package | str, *, target: str, settings: Mapping[str, str]
    ) -> dict[str, object]:
        """What `deploy` would do, after the same checks."""
        return self.deployments.plan(name, package, target=target, settings=settings)

    @property
    def folder(self) -> Path:
        """Where blobs, unpacked packages and logs are."""
        return self.registry.location.blobs

    def close(self) -> None:
        """Closes the database."""
        self.registry.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

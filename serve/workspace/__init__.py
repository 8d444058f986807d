"""The Python API: everything that a command does is one call away.

A workspace is opened, and what a collection needs is imported, when it is first used: a command
that registers a model does not pay for what deploying needs.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Self

from serve.registry.location import resolve

if TYPE_CHECKING:
    from serve.batch.runs import Batch
    from serve.endpoints.service import Endpoints
    from serve.provenance.keys import PublicKey
    from serve.registry import Registry
    from serve.registry.records import Package
    from serve.workspace.deployments import DeploymentHandle, Deployments
    from serve.workspace.environments import Environments
    from serve.workspace.models import Models
    from serve.workspace.packages import Packages

__all__ = ["Workspace"]


class Workspace:
    """One team's registry: models, environments, packages and deployments.

    Args:
        location: A folder, or a `postgresql://` URL; by default `$FIELDPOST_WORKSPACE`, else
            `~/.fieldpost`. It is made where it does not exist.

    Attributes:
        location: Where it is; its text has passwords masked.

    Raises:
        UsageError: The location is of no kind that a workspace can be at.
    """

    def __init__(self, location: str | os.PathLike[str] | None = None) -> None:
        self.location = resolve(location)

    @cached_property
    def registry(self) -> Registry:
        """The records and the bytes; opened now. Raises WorkspaceError where it cannot be."""
        from serve.registry.registry import Registry

        return Registry(self.location)

    @cached_property
    def models(self) -> Models:
        """Registered models."""
        from serve.workspace.models import Models

        return Models(self)

    @cached_property
    def environments(self) -> Environments:
        """Registered environments."""
        from serve.workspace.environments import Environments

        return Environments(self.registry)

    @cached_property
    def packages(self) -> Packages:
        """Built packages."""
        from serve.workspace.packages import Packages

        return Packages(self)

    @cached_property
    def deployments(self) -> Deployments:
        """What runs."""
        from serve.workspace.deployments import Deployments

        return Deployments(self)

    @cached_property
    def batch(self) -> Batch:
        """Batch scoring of datasets."""
        from serve.batch.runs import Batch

        return Batch(self.registry)

    @cached_property
    def endpoints(self) -> Endpoints:
        """Stable URLs in front of what runs."""
        from serve.endpoints.service import Endpoints

        return Endpoints(self.registry)

    def deploy(
        self,
        name: str,
        package: Package | str,
        *,
        target: str = "local",
        settings: Mapping[str, str] | None = None,
        progress: Callable[[str], None] | None = None,
        verify_keys: Sequence[PublicKey] = (),
        force: bool = False,
    ) -> DeploymentHandle:
        """Runs a package under a name; a further call is a new revision of it.

        Traffic moves to the new revision when it is ready, and nothing is dropped on the way.

        Args:
            name: The deployment's name.
            package: A package, or a reference to one.
            target: Where it runs.
            settings: The target's settings, such as `{"workers": "2"}`.
            progress: Called with a sentence at each step.
            verify_keys: Public keys of which one must have signed the package, besides what the
                workspace's policy requires.
            force: Take over fields that others own (on Kubernetes).

        Raises:
            DeploymentFailedError: It never became ready; the revision before goes on answering.
            UnsignedError: A signature is required, and there is none.
            VerificationError: The signature, or what it vouches for, does not match.
        """
        return self.deployments.deploy(
            name,
            package,
            target=target,
            settings=settings or {},
            progress=progress,
            verify_keys=verify_keys,
            force=force,
        )

    def plan_deployment(
        self,
        name: str,
        package: Package | str,
        *,
        target: str,
        settings: Mapping[str, str],
        verify_keys: Sequence[PublicKey] = (),
    ) -> dict[str, object]:
        """What `deploy` would do, after the same checks."""
        return self.deployments.plan(
            name, package, target=target, settings=settings, verify_keys=verify_keys
        )

    def require_signatures(self, keys: Sequence[PublicKey]) -> None:
        """From now on deploys only what one of the keys signed; with none, whatever there is.

        Args:
            keys: Public keys (`serve.provenance.keyfiles.load_public`).
        """
        from serve.provenance.policy import write_policy

        write_policy(self.registry, keys)

    def required_signers(self) -> tuple[PublicKey, ...]:
        """The keys of which one must have signed what is deployed; none: nothing is required."""
        from serve.provenance.policy import read_policy

        return read_policy(self.registry)

    @property
    def folder(self) -> Path:
        """Where blobs, unpacked packages and logs are."""
        return self.location.blobs

    def close(self) -> None:
        """Closes the database, if it was opened."""
        if "registry" in vars(self):
            self.registry.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

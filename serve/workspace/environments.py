"""Environments: locked once, named, found again by their hash.

What reads and resolves them is imported where that is done: listing needs none of it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from scoring.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scoring.bundle import RuntimeName
    from serve.packaging.environments import LockedEnvironment
    from serve.packaging.lock import Lock
    from serve.registry import Registry
    from serve.registry.records import Environment


class Environments:
    """The registered environments of a workspace."""

    def __init__(self, registry: Registry) -> None:
        self._store = registry.environments
        self._cache = registry.location.blobs / "cache" / "locks"

    def resolve(
        self, file: str | Path, *, platform: str | None = None, python: str | None = None
    ) -> Lock:
        """Resolves an environment file with hashes; nothing is registered.

        Args:
            file: `requirements.txt`, `pyproject.toml`, `uv.lock` or conda YAML.
            platform: `linux/amd64` or `linux/arm64`; by default this machine's.
            python: `3.11`; by default what the file says, else the running one.

        Raises:
            EnvironmentResolutionError: It does not resolve; `where` names the line.
        """
        from serve.packaging.environments import lock_environment  # noqa: PLC0415

        return lock_environment(Path(file), platform=platform, python=python).lock

    def register(
        self,
        name: str,
        file: str | Path,
        *,
        platform: str | None = None,
        python: str | None = None,
    ) -> Environment:
        """Resolves an environment file and records it; the same lock is the same version."""
        from serve.packaging.environments import lock_environment  # noqa: PLC0415

        found = lock_environment(Path(file), platform=platform, python=python)
        return self._store.register(
            name,
            found.encode(),
            hash=found.lock.hash,
            source_kind=found.source.kind,
            platform=found.lock.target.platform,
            python=found.lock.target.python,
        )

    def get(self, ref: str) -> Environment:
        """The environment that NAME, NAME:VERSION or a hash names; raises NotFoundError."""
        return self._store.get(ref)

    def list(self) -> tuple[Environment, ...]:
        """All environments by name, the newest version first."""
        return self._store.list()

    def read(self, environment: Environment) -> LockedEnvironment:
        """What was asked for, and the lock."""
        from serve.packaging.environments import LockedEnvironment  # noqa: PLC0415

        return LockedEnvironment.decode(self._store.lock(environment))

    def for_package(
        self,
        ref: str | None,
        runtime: RuntimeName,
        *,
        requirements: Sequence[str] = (),
        native: Sequence[str] = (),
        made_with: Sequence[str] = (),
        platform: str | None = None,
        python: str | None = None,
    ) -> Lock:
        """The lock of a package: the user's environment, or a default, with the server's needs.

        Args:
            ref: A registered environment; None for none.
            runtime: What serves.
            requirements: What the form that serves needs beside the runtime, pinned.
            native: What the original model was made with; empty where the compiled form serves.
            made_with: The same, whatever serves.
            platform: As in `resolve`.
            python: As in `resolve`.

        Raises:
            EnvironmentResolutionError: It does not resolve.
            IncompatibleEnvironmentError: It lacks what the model needs.
            UsageError: The environment was locked for another platform or Python.
        """
        from serve.packaging.environments import LockCache, package_lock  # noqa: PLC0415
        from serve.packaging.requirements import target_for  # noqa: PLC0415

        environment = None
        target = target_for(None, platform, python)
        if ref is not None:
            record = self.get(ref)
            _require_same(record, platform, python)
            environment = self.read(record)
            target = environment.lock.target
        return package_lock(
            runtime,
            target,
            LockCache(self._cache),
            environment=environment,
            requirements=requirements,
            native_requirements=native,
            made_with=made_with,
        )


def _require_same(environment: Environment, platform: str | None, python: str | None) -> None:
    for given, locked, what in (
        (platform, environment.platform, "platform"),
        (python, environment.python, "Python version"),
    ):
        if given is not None and given != locked:
            raise UsageError(
                f"The environment {environment.ref} is locked for {what} {locked}, not {given}.",
                hint=f"Register it for {given} too: 'fieldpost env register' has the option.",
            )

"""Environments: locked once, named, and completed with what a package's server needs."""

from __future__ import annotations

import platform as machine
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from scoring import digest, durable
from scoring.errors import CorruptModelError, UsageError
from serve.packaging.compatibility import check_compatible
from serve.packaging.defaults import default_lock, has_default
from serve.packaging.lock import Lock
from serve.packaging.needs import serving_requirements
from serve.packaging.platforms import Target
from serve.packaging.requirements import read_requirements
from serve.packaging.resolve import lock as resolve
from serve.packaging.sources import EnvironmentSource, RequestedPackage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scoring.bundle import RuntimeName
    from serve.registry import Registry
    from serve.registry.records import Environment

_ARCHITECTURES = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}


class RegisteredEnvironment(msgspec.Struct, frozen=True):
    """What the registry keeps of an environment: what was asked for, and what it became."""

    source: EnvironmentSource
    lock: Lock


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
        return self._resolve(Path(file), platform, python).lock

    def register(
        self,
        name: str,
        file: str | Path,
        *,
        platform: str | None = None,
        python: str | None = None,
    ) -> Environment:
        """Resolves an environment file and records it; the same lock is the same version."""
        found = self._resolve(Path(file), platform, python)
        return self._store.register(
            name,
            msgspec.json.format(msgspec.json.encode(found, order="sorted")),
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

    def read(self, environment: Environment) -> RegisteredEnvironment:
        """What was asked for, and the lock."""
        document = self._store.lock(environment)
        try:
            return msgspec.json.decode(document, type=RegisteredEnvironment)
        except msgspec.DecodeError as error:
            raise CorruptModelError(
                f"The lock of {environment.ref} cannot be read: {error}.",
                hint="Register the environment again.",
            ) from error

    def for_package(
        self,
        ref: str | None,
        runtime: RuntimeName,
        *,
        native: Sequence[str] = (),
        platform: str | None = None,
        python: str | None = None,
    ) -> Lock:
        """The lock of a package: the user's environment, or a default, with the server's needs.

        Args:
            ref: A registered environment; None for none.
            runtime: What serves.
            native: What the original model needs, pinned; empty where the compiled form serves.
            platform: As in `resolve`.
            python: As in `resolve`.

        Raises:
            EnvironmentResolutionError: It does not resolve.
            IncompatibleEnvironmentError: It lacks what the model needs.
            UsageError: The environment was locked for another platform or Python.
        """
        if ref is not None:
            return self._complete(self.get(ref), runtime, native, platform, python)
        target = _target(platform, python)
        if has_default(runtime) and not native:
            return default_lock(runtime, target)
        wanted = (*serving_requirements(runtime), *native)
        return self._resolved_once(_NOTHING, target, wanted)

    def _resolve(
        self, file: Path, platform: str | None, python: str | None
    ) -> RegisteredEnvironment:
        source = read_requirements(file)
        target = _target(platform, python or source.python or None)
        # With the server's needs from the start: one lock serves most packages as it is.
        locked = resolve(source, target, extra_requirements=serving_requirements("sklearn"))
        return RegisteredEnvironment(source, locked)

    def _complete(
        self,
        environment: Environment,
        runtime: RuntimeName,
        native: Sequence[str],
        platform: str | None,
        python: str | None,
    ) -> Lock:
        for given, locked, what in (
            (platform, environment.platform, "platform"),
            (python, environment.python, "Python version"),
        ):
            if given is not None and given != locked:
                raise UsageError(
                    f"The environment {environment.ref} is locked for the {what} {locked}, "
                    f"not {given}.",
                    hint=f"Register it for {given} too: 'fieldpost env register' has the option.",
                )
        known = self.read(environment)
        check_compatible(known.source, known.lock, native)
        wanted = serving_requirements(runtime)
        if _satisfies(known.lock, wanted):
            return known.lock
        pins = tuple(
            RequestedPackage(text=f"{item.name}=={item.version}", path=environment.ref, line=0)
            for item in known.lock.packages
            if item.version
        )
        source = msgspec.structs.replace(
            known.source, constraints=(*known.source.constraints, *pins)
        )
        return self._resolved_once(source, known.lock.target, wanted)

    def _resolved_once(
        self, source: EnvironmentSource, target: Target, wanted: Sequence[str]
    ) -> Lock:
        """Resolves, or finds what the same question was answered before."""
        question = msgspec.json.encode((source, target, wanted), order="sorted")
        path = self._cache / f"{digest.parse(digest.of_bytes(question))}.json"
        try:
            return msgspec.json.decode(path.read_bytes(), type=Lock)
        except (OSError, msgspec.DecodeError):
            found = resolve(source, target, extra_requirements=wanted)
        self._cache.mkdir(parents=True, exist_ok=True)
        durable.write_bytes(path, msgspec.json.encode(found, order="sorted"))
        return found


_NOTHING = EnvironmentSource(kind="requirements", path="the model's own requirements")


def _target(platform: str | None, python: str | None) -> Target:
    version = python or f"{sys.version_info.major}.{sys.version_info.minor}"
    return Target(platform=platform or _this_platform(), python=version)


def _this_platform() -> str:
    name = machine.machine().lower()
    return f"linux/{_ARCHITECTURES.get(name, name)}"


def _satisfies(lock: Lock, wanted: Sequence[str]) -> bool:
    """Whether a lock already holds every requirement."""
    versions = {package.name: package.version for package in lock.packages}
    for text in wanted:
        requirement = Requirement(text)
        version = versions.get(canonicalize_name(requirement.name))
        if not version or not requirement.specifier.contains(version, prereleases=True):
            return False
    return True

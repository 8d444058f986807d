"""Environments from a user's file to the lock of a package."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import msgspec

from scoring import digest, durable
from scoring.errors import EnvironmentResolutionError
from serve.packaging.defaults import default_lock, has_default
from serve.packaging.lock import Lock
from serve.packaging.release import RELEASE_DATE
from serve.packaging.requirements import read_requirements, target_for
from serve.packaging.sources import EnvironmentSource, RequestedPackage

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from scoring.bundle import RuntimeName
    from serve.packaging.platforms import Target


class LockedEnvironment(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A user's environment as the registry keeps it: what was asked for, and what came of it.

    Attributes:
        source: The file's content.
        lock: It and the server's own needs, resolved together.
    """

    source: EnvironmentSource
    lock: Lock

    def encode(self) -> bytes:
        """As JSON, the same for the same environment."""
        return msgspec.json.format(msgspec.json.encode(self, order="sorted"), indent=2) + b"\n"

    @classmethod
    def decode(cls, content: bytes) -> LockedEnvironment:
        """Reads what `encode` wrote.

        Raises:
            EnvironmentResolutionError: It is something else.
        """
        try:
            return msgspec.json.decode(content, type=cls)
        except (msgspec.DecodeError, msgspec.ValidationError) as error:
            raise EnvironmentResolutionError(
                f"The stored environment cannot be read: {error}.", hint="Register it again."
            ) from error


class LockCache:
    """A folder of resolutions, each under the digest of everything that decides it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def lock(
        self, source: EnvironmentSource, target: Target, extra_requirements: Sequence[str]
    ) -> Lock:
        """Resolves, or finds what was resolved before; raises like `resolve.lock`."""
        from serve.packaging.uvtool import index_settings  # noqa: PLC0415 - defaults need none

        question = (source, target, sorted(extra_requirements), index_settings(), RELEASE_DATE)
        key = digest.of_bytes(msgspec.json.encode(question, order="sorted"))
        path = self.folder / f"{digest.parse(key)}.json"
        with contextlib.suppress(OSError, msgspec.DecodeError, msgspec.ValidationError):
            return msgspec.json.decode(path.read_bytes(), type=Lock)
        from serve.packaging.resolve import lock  # noqa: PLC0415 - heavy

        found = lock(source, target, extra_requirements=extra_requirements)
        durable.write_cache(path, msgspec.json.encode(found, order="sorted"))
        return found


def lock_environment(
    path: Path, *, platform: str | None = None, python: str | None = None
) -> LockedEnvironment:
    """Reads and resolves a user's environment file, with what every server needs beside it.

    Args:
        path: `requirements.txt`, `pyproject.toml`, `uv.lock` or conda YAML.
        platform: `linux/amd64` or `linux/arm64`; this machine's by default.
        python: The Python version; the file's, else this one's, by default.

    Raises:
        EnvironmentResolutionError: The file cannot be read or does not resolve; `where` names
            the line.
    """
    from serve.packaging.needs import server_requirements  # noqa: PLC0415 - heavy
    from serve.packaging.resolve import lock  # noqa: PLC0415 - heavy

    source = read_requirements(path)
    target = target_for(source, platform, python)
    found = lock(source, target, extra_requirements=server_requirements())
    return LockedEnvironment(source=source, lock=found)


def package_lock(
    runtime: RuntimeName,
    target: Target,
    cache: LockCache,
    *,
    environment: LockedEnvironment | None = None,
    requirements: Sequence[str] = (),
    native_requirements: Sequence[str] = (),
    made_with: Sequence[str] = (),
) -> Lock:
    """The lock of a package.

    Args:
        runtime: What loads the model: `script` where a script does.
        target: What the package is for; with an environment, that of its lock.
        cache: Remembers resolutions.
        environment: The user's; None for the default one.
        requirements: What the form that serves needs beside the runtime, pinned.
        native_requirements: What the original was made with, where a script or a native runtime
            loads it; empty where the compiled form serves.
        made_with: What the original was made with, whatever serves: the user's environment must
            not contradict it.

    Raises:
        EnvironmentResolutionError: It does not resolve; `where` names the user's line.
        IncompatibleEnvironmentError: The user's environment cannot load the model.
    """
    wanted = sorted({*requirements, *native_requirements})
    if environment is None and not wanted and has_default(runtime, target):
        return default_lock(runtime, target)
    from serve.packaging import needs  # noqa: PLC0415 - heavy, as what follows
    from serve.packaging.compatibility import check_compatible  # noqa: PLC0415

    if environment is None:
        nothing = EnvironmentSource(kind="requirements", path="the model's own requirements")
        return cache.lock(nothing, target, (*needs.default_requirements(runtime), *wanted))
    check_compatible(environment.source, environment.lock, native_requirements, made_with)
    extra = (*needs.serving_requirements(runtime), *_missing(environment.lock, requirements))
    return _extended(environment, extra, cache)


def _extended(environment: LockedEnvironment, extra: Sequence[str], cache: LockCache) -> Lock:
    """The user's lock with more packages: at its own versions, and at others only if it must."""
    locked = environment.lock
    if not _missing(locked, extra):
        return locked
    pinned = msgspec.structs.replace(environment.source, constraints=_pins(locked))
    try:
        return cache.lock(pinned, locked.target, extra)
    except EnvironmentResolutionError:
        return cache.lock(environment.source, locked.target, extra)


def _missing(lock: Lock, requirements: Sequence[str]) -> list[str]:
    """The requirements that a lock does not fulfil yet."""
    from packaging.requirements import Requirement  # noqa: PLC0415 - heavy
    from packaging.utils import canonicalize_name  # noqa: PLC0415

    versions = {package.name: package.version for package in lock.packages}
    missing = []
    for text in requirements:
        requirement = Requirement(text)
        marker = requirement.marker
        if marker is not None and not marker.evaluate({"python_version": lock.target.python}):
            continue
        version = versions.get(canonicalize_name(requirement.name), "")
        if requirement.extras or not version or not requirement.specifier.contains(version):
            missing.append(text)
    return missing


def _pins(lock: Lock) -> tuple[RequestedPackage, ...]:
    return tuple(
        RequestedPackage(
            text=package.requirement(),
            path="the registered lock",
            line=number,
            sha256=(package.sha256,),
        )
        for number, package in enumerate(lock.packages, 1)
    )

"""Resolves environments with uv: what a user asks for and what serving needs, together."""

from __future__ import annotations

import datetime as dt
import tempfile
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from scoring.errors import EnvironmentResolutionError
from serve.packaging.blame import resolution_error
from serve.packaging.lock import Lock, LockedPackage, format_lock
from serve.packaging.platforms import Target
from serve.packaging.release import RELEASE_DATE as RELEASE_DATE  # noqa: PLC0414 - of locks
from serve.packaging.uvtool import UvResult, run_uv, torch_backend, uv_options
from serve.packaging.wheels import best_wheel

if TYPE_CHECKING:
    from serve.packaging.sources import EnvironmentSource, RequestedPackage

Clock = Callable[[], dt.datetime]


def _utc_now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


def lock(
    source: EnvironmentSource,
    target: Target | None = None,
    *,
    extra_requirements: Sequence[str] = (),
    clock: Clock = _utc_now,
) -> Lock:
    """Resolves an environment for a platform and Python version, with hashes.

    The same arguments give the same lock at any time: files that were uploaded after
    `RELEASE_DATE` are left out. Where that leaves something unresolved that is there by now, the
    first later day on which it resolves takes the place of that date.

    Args:
        source: What the user asks for.
        target: Defaults to `Target()`.
        extra_requirements: What serving and the model need beside it.
        clock: Now, in UTC.

    Raises:
        EnvironmentResolutionError: It does not resolve; `where` names the user's line.
    """
    resolver = _Resolver(source, target or Target(), tuple(extra_requirements))
    result, date = resolver.attempt(RELEASE_DATE), RELEASE_DATE
    if not result.ok and not result.network_down:
        date = _first_date(resolver, clock().date())
        result = resolver.attempt(date)
    if not result.ok:
        raise resolution_error(
            source, resolver.target, result, resolver.resolves_without, extra_requirements
        )
    packages = _locked_packages(result.stdout, source, resolver.target)
    return Lock(
        text=format_lock(packages),
        target=resolver.target,
        exclude_newer=date,
        options=source.options,
    )


def _first_date(resolver: _Resolver, today: dt.date) -> str:
    """The first midnight after the release at which it resolves; empty for no limit at all."""
    low = dt.datetime.fromisoformat(RELEASE_DATE).date()
    high = today + dt.timedelta(days=1)
    if not resolver.attempt(_midnight(high)).ok:
        return ""  # an index without upload times, or never
    while (high - low).days > 1:
        middle = low + (high - low) // 2
        if resolver.attempt(_midnight(middle)).ok:
            high = middle
        else:
            low = middle
    return _midnight(high)


def _midnight(day: dt.date) -> str:
    return f"{day.isoformat()}T00:00:00Z"


class _Resolver:
    """One question to uv, asked with different limits."""

    def __init__(
        self, source: EnvironmentSource, target: Target, extra_requirements: tuple[str, ...]
    ) -> None:
        self.source = source
        self.target = target
        self._extra = extra_requirements

    def attempt(self, exclude_newer: str) -> UvResult:
        return self._run(self.source.packages, exclude_newer)

    def resolves_without(self, package: RequestedPackage) -> bool:
        """Whether the rest would resolve, which makes that line the wrong one."""
        rest = [each for each in self.source.packages if each != package]
        return self._run(rest, "").ok

    def _run(self, packages: Sequence[RequestedPackage], exclude_newer: str) -> UvResult:
        with tempfile.TemporaryDirectory(prefix="fieldpost-resolve-") as name:
            folder = Path(name)
            wanted = [each.text for each in packages]
            (folder / "requirements.in").write_text("\n".join([*wanted, *self._extra, ""]))
            allowed = [each.text for each in self.source.constraints]
            (folder / "constraints.txt").write_text("\n".join([*allowed, ""]))
            return run_uv(self._arguments(exclude_newer), folder=folder)

    def _names(self) -> list[str]:
        extra = [canonicalize_name(Requirement(text).name) for text in self._extra]
        return [*extra, *(each.name for each in self.source.packages)]

    def _arguments(self, exclude_newer: str) -> list[str]:
        return [
            *("pip", "compile", "--quiet", "--format", "pylock.toml", "--no-header"),
            *("--generate-hashes", "-c", "constraints.txt", "--resolution", "highest"),
            *self.target.uv_arguments(),
            *uv_options(self.source.options),
            *torch_backend(self._names()),
            *(("--exclude-newer", exclude_newer) if exclude_newer else ()),
            "requirements.in",
        ]


def _locked_packages(
    pylock: str, source: EnvironmentSource, target: Target
) -> tuple[LockedPackage, ...]:
    allowed = _allowed_hashes(source)
    document = tomllib.loads(pylock)
    return tuple(_locked_package(entry, allowed, target) for entry in document.get("packages", ()))


def _allowed_hashes(source: EnvironmentSource) -> dict[str, tuple[set[str], str]]:
    """Name to the hashes that the user's file allows, and the line that says so."""
    allowed: dict[str, tuple[set[str], str]] = {}
    for package in (*source.packages, *source.constraints):
        if package.sha256:
            hashes, _ = allowed.setdefault(package.name, (set(), package.where))
            hashes.update(package.sha256)
    return allowed


def _locked_package(
    entry: dict[str, Any], allowed: dict[str, tuple[set[str], str]], target: Target
) -> LockedPackage:
    name = canonicalize_name(cast("str", entry["name"]))
    version = str(entry.get("version", ""))
    hashes, where = allowed.get(name, (None, ""))
    files = [entry["archive"]] if "archive" in entry else entry.get("wheels", [])
    wheel = best_wheel(files, target, hashes)
    if wheel is None:
        raise _no_wheel(name, version, target, where)
    url = str(entry["archive"].get("url", "")) if "archive" in entry else ""
    return LockedPackage(name, version if not url else "", wheel, url)


def _no_wheel(name: str, version: str, target: Target, where: str) -> EnvironmentResolutionError:
    if where:
        return EnvironmentResolutionError(
            f"No file of {name} {version} for {target.platform} and Python {target.python} has one "
            "of the hashes that the file allows.",
            hint="Lock the file again for this platform and Python version.",
            where=where,
        )
    return EnvironmentResolutionError(
        f"{name} {version} has no wheel for {target.platform} and Python {target.python}.",
        hint="Ask for another version of it, or build for another platform or Python version.",
    )

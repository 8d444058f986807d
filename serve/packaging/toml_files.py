"""Reads `pyproject.toml` and `uv.lock`."""

from __future__ import annotations

import re
import tomllib
from typing import TYPE_CHECKING, Any

from packaging.requirements import Requirement

from scoring.errors import EnvironmentResolutionError
from serve.packaging.requirement_lines import parse_requirement, read_text
from serve.packaging.sources import EnvironmentSource, RequestedPackage

if TYPE_CHECKING:
    from pathlib import Path

_Table = dict[str, Any]


def read_pyproject(path: Path) -> EnvironmentSource:
    """The `[project]` table's dependencies, with uv's constraints and indexes.

    Raises:
        EnvironmentResolutionError: The file declares none, or some that cannot be packaged.
    """
    text, document = _load(path)
    project = document.get("project")
    if not isinstance(project, dict):
        raise EnvironmentResolutionError(
            f"{path} has no [project] table.",
            hint="Declare the dependencies in [project], or export them to requirements.txt.",
            where=f"{path}:1",
        )
    if "dependencies" in (project.get("dynamic") or ()):
        raise EnvironmentResolutionError(
            "The dependencies are dynamic: they are known only when the project is built.",
            hint="Write them into [project] dependencies, or export them to requirements.txt.",
            where=f"{path}:{_line_of(text, 'dynamic')}",
        )
    settings = document.get("tool", {}).get("uv", {})
    packages = _requirements(project.get("dependencies", []), text, path)
    _refuse_local_sources(packages, settings.get("sources", {}), text, path)
    return EnvironmentSource(
        kind="pyproject",
        path=str(path),
        packages=packages,
        constraints=_requirements(settings.get("constraint-dependencies", []), text, path),
        python_range=str(project.get("requires-python", "")),
        python_where=f"{path}:{_line_of(text, 'requires-python')}",
        options=_index_options(settings.get("index", [])),
    )


def read_uv_lock(path: Path) -> EnvironmentSource:
    """The project's direct dependencies, and every locked version as a constraint with hashes.

    uv itself then finds the part of the lock that a platform needs.

    Raises:
        EnvironmentResolutionError: The lock has no project, or packages that have no wheel.
    """
    text, document = _load(path)
    entries = [entry for entry in document.get("package", ()) if isinstance(entry, dict)]
    roots = [entry for entry in entries if _is_root(entry)]
    if not roots:
        raise EnvironmentResolutionError(
            f"{path} locks no project.", hint="Run 'uv lock' beside its pyproject.toml."
        )
    packages: list[RequestedPackage] = []
    for dependency in roots[0].get("dependencies", ()):
        line = _line_of(text, f'name = "{dependency["name"]}"')
        packages.append(parse_requirement(_requirement_text(dependency), str(path), line))
    locked = [entry for entry in entries if entry is not roots[0]]
    return EnvironmentSource(
        kind="uv.lock",
        path=str(path),
        packages=tuple(packages),
        constraints=tuple(_locked(entry, text, path) for entry in locked),
        python_range=str(document.get("requires-python", "")),
        python_where=f"{path}:{_line_of(text, 'requires-python')}",
        options=_registry_options(locked),
    )


def _load(path: Path) -> tuple[str, _Table]:
    text = read_text(path)
    try:
        return text, tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        line = re.search(r"line (\d+)", str(error))
        last = len(text.splitlines()) or 1
        raise EnvironmentResolutionError(
            f"{path} is not valid TOML: {error}.", where=f"{path}:{line[1] if line else last}"
        ) from error


def _line_of(text: str, needle: str) -> int:
    """Tomllib keeps no lines: the first line that holds the text, or 1."""
    for number, line in enumerate(text.splitlines(), 1):
        if needle in line and not line.lstrip().startswith("#"):
            return number
    return 1


def _requirements(items: Any, text: str, path: Path) -> tuple[RequestedPackage, ...]:
    if not isinstance(items, list) or not all(isinstance(item, str) for item in items):
        raise EnvironmentResolutionError(
            "The dependencies are not a list of strings.",
            where=f"{path}:{_line_of(text, 'dependencies')}",
        )
    return tuple(parse_requirement(item, str(path), _line_of_item(text, item)) for item in items)


def _line_of_item(text: str, item: str) -> int:
    escaped = item.replace("\\", "\\\\").replace('"', '\\"')
    for needle in (f'"{escaped}"', f"'{item}'", item):
        if needle in text:
            return _line_of(text, needle)
    return _line_of(text, "dependencies")


def _refuse_local_sources(
    packages: tuple[RequestedPackage, ...], sources: _Table, text: str, path: Path
) -> None:
    names = {package.name for package in packages}
    for name, source in sources.items():
        if name in names and not (isinstance(source, dict) and {"index", "url"} & source.keys()):
            raise EnvironmentResolutionError(
                f"{name!r} comes from a local folder or from version control, which has no wheel.",
                hint="Use a released version, or put that code into --source.",
                where=f"{path}:{_line_of(text, f'{name} = ')}",
            )


def _index_options(indexes: list[_Table]) -> tuple[str, ...]:
    options: list[str] = []
    for index in indexes:
        name = "--default-index" if index.get("default") else "--index"
        options += [name, str(index.get("url", ""))]
    return tuple(options)


def _is_root(entry: _Table) -> bool:
    source = entry.get("source", {})
    return any(source.get(kind) == "." for kind in ("editable", "virtual", "directory"))


def _requirement_text(dependency: _Table) -> str:
    extras = ",".join(dependency.get("extra", ()))
    marker = dependency.get("marker", "")
    name = dependency["name"] + (f"[{extras}]" if extras else "")
    return f"{name} ; {marker}" if marker else name


def _locked(entry: _Table, text: str, path: Path) -> RequestedPackage:
    name, version, source = entry["name"], entry.get("version", ""), entry.get("source", {})
    line = _line_of(text, f'name = "{name}"')
    if not {"registry", "url"} & source.keys() or not version:
        raise EnvironmentResolutionError(
            f"{name!r} comes from a local folder or from version control, which has no wheel.",
            hint="Use a released version of it, or put its code into --source.",
            where=f"{path}:{line}",
        )
    markers = [f"({marker})" for marker in entry.get("resolution-markers", ())]
    pinned = f"{name} @ {source['url']}" if "url" in source else f"{name}=={version}"
    hashes = tuple(
        wheel["hash"].removeprefix("sha256:")
        for wheel in entry.get("wheels", ())
        if str(wheel.get("hash", "")).startswith("sha256:")
    )
    return RequestedPackage(
        text=str(Requirement(f"{pinned} ; {' or '.join(markers)}" if markers else pinned)),
        path=str(path),
        line=line,
        sha256=hashes,
    )


def _registry_options(entries: list[_Table]) -> tuple[str, ...]:
    """The indexes other than PyPI that the lock names."""
    urls = {str(entry.get("source", {}).get("registry", "")) for entry in entries}
    options: list[str] = []
    for url in sorted(urls - {"", "https://pypi.org/simple"}):
        options += ["--index", url]
    return tuple(options)

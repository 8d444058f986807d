"""Reads a user's environment file of any kind, and settles its Python version."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from scoring.errors import EnvironmentResolutionError
from scoring.packages.platformindex import this_platform
from serve.packaging.platforms import PYTHONS, Target

if TYPE_CHECKING:
    from pathlib import Path

    from serve.packaging.sources import EnvironmentSource

_OTHER_FILES = {
    "pipfile": "pipenv requirements > requirements.txt",
    "pipfile.lock": "pipenv requirements > requirements.txt",
    "poetry.lock": "poetry export -o requirements.txt",
    "pylock.toml": "uv export --format requirements-txt > requirements.txt",
    "setup.py": "pip freeze > requirements.txt",
    "setup.cfg": "pip freeze > requirements.txt",
    "conda-lock.yml": "conda env export > environment.yml",
}


def read_requirements(path: Path) -> EnvironmentSource:
    """Reads `requirements.txt`, `pyproject.toml`, `uv.lock` or conda YAML, told by its name.

    Raises:
        EnvironmentResolutionError: The file cannot be read, or holds a line that no package can
            be built from; `where` names the line.
    """
    from serve.packaging.requirement_lines import read_requirement_lines  # noqa: PLC0415 - see
    from serve.packaging.sources import EnvironmentSource  # noqa: PLC0415 - target_for: it is light
    from serve.packaging.toml_files import read_pyproject, read_uv_lock  # noqa: PLC0415

    name = path.name.lower()
    if name in _OTHER_FILES:
        raise EnvironmentResolutionError(
            f"{path.name} is not a kind of environment file that Fieldpost reads.",
            hint=f"Make one that it reads: {_OTHER_FILES[name]}",
            where=str(path),
        )
    if name.endswith((".yml", ".yaml")):
        from serve.packaging.conda_file import read_conda  # noqa: PLC0415 - imports yaml

        return read_conda(path)
    if name == "uv.lock":
        return read_uv_lock(path)
    if name.endswith(".toml"):
        return read_pyproject(path)
    found = read_requirement_lines(path)
    return EnvironmentSource(
        kind="requirements",
        path=str(path),
        packages=tuple(found.packages),
        constraints=tuple(found.constraints),
        options=tuple(found.options),
    )


def target_for(
    source: EnvironmentSource | None, platform: str | None = None, python: str | None = None
) -> Target:
    """The platform and Python version to build for: as told, else the file's, else this machine's.

    Raises:
        EnvironmentResolutionError: The file asks for another Python version than was told, or for
            one that the server does not run on.
        UsageError: There is no such platform or version.
    """
    chosen = python or (source.python if source else "") or _python_in_range(source)
    if source is not None:
        _require_python(source, chosen)
    return Target(platform=platform or this_platform(), python=chosen)


def _python_in_range(source: EnvironmentSource | None) -> str:
    """This Python version if the file allows it, else the newest one that it allows."""
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    allowed = [one for one in (here, *reversed(PYTHONS)) if source is None or _allows(source, one)]
    return allowed[0] if allowed else here


def _allows(source: EnvironmentSource, python: str) -> bool:
    from packaging.specifiers import InvalidSpecifier, SpecifierSet  # noqa: PLC0415

    try:
        allowed = SpecifierSet(source.python_range)
    except InvalidSpecifier as error:
        raise EnvironmentResolutionError(
            f"{source.python_range!r} is no range of Python versions.", where=source.python_where
        ) from error
    # Some patch release will do: `>=3.11.4` and `<3.12` both allow 3.11.
    return any(allowed.contains(f"{python}.{patch}") for patch in range(30))


def _require_python(source: EnvironmentSource, python: str) -> None:
    minor = source.python.split(".")[-1]
    if source.python and (not source.python.startswith("3.") or int(minor) < 11):  # noqa: PLR2004
        raise EnvironmentResolutionError(
            f"The environment asks for Python {source.python}, and the server needs 3.11 or newer.",
            hint=f"Change it to one of: {', '.join(PYTHONS)}.",
            where=source.python_where,
        )
    if (source.python and source.python != python) or not _allows(source, python):
        raise EnvironmentResolutionError(
            f"The environment asks for Python {source.python or source.python_range}, "
            f"which {python} is not.",
            hint="Leave --python out, or change that line.",
            where=source.python_where,
        )

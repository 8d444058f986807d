"""Finds the user's line that is wrong when an environment does not resolve."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from scoring.errors import EnvironmentResolutionError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from serve.packaging.platforms import Target
    from serve.packaging.sources import EnvironmentSource, RequestedPackage
    from serve.packaging.uvtool import UvResult

_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")
_REASON_CHARACTERS = 500
_TRIED = 8


def resolution_error(
    source: EnvironmentSource,
    target: Target,
    result: UvResult,
    resolves_without: Callable[[RequestedPackage], bool],
    needed: Sequence[str] = (),
) -> EnvironmentResolutionError:
    """The error for what uv answered.

    Args:
        source: What the user asked for.
        target: What it was resolved for.
        result: uv's answer.
        resolves_without: Whether the environment would resolve without one of its lines.
        needed: What was asked for beside the user's file.
    """
    if result.network_down:
        return EnvironmentResolutionError(
            "The environment cannot be resolved: no package index can be reached, and uv's cache "
            "does not hold all that it needs.",
            hint="Connect to the network and try again; what was fetched once is kept.",
            where=source.path,
            detail=result.stderr,
        )
    reason = shorten_reason(result.stderr)
    guilty = _guilty_line(source, result.stderr, resolves_without)
    line = f" The line {guilty.text!r} does not fit." if guilty else ""
    ours = [text for text in needed if guilty and guilty.name == _name_of(text)]
    line += f" Serving the model needs {ours[0]}." if ours else ""
    return EnvironmentResolutionError(
        f"The environment does not resolve for {target.platform} and Python {target.python}."
        f"{line} {reason}",
        hint="Change that requirement, or the ones it conflicts with, and try again.",
        where=guilty.where if guilty else source.path,
        detail=result.stderr,
    )


def _name_of(text: str) -> str:
    return canonicalize_name(Requirement(text).name)


def shorten_reason(stderr: str) -> str:
    """The explanation of uv in one line, without its drawing, hints and program name."""
    text = re.sub(r"[\u2500-\u25ff\u00d7]", " ", stderr)
    text = re.split(r"\n\s*\n|\n\s*hint:", text.strip())[0]
    text = re.sub(r"\s+", " ", text)
    text = re.sub(r"^(error: )?No solution found when resolving dependencies:?( cause:)?", "", text)
    text = text.removeprefix("error:").strip()
    if len(text) > _REASON_CHARACTERS:
        text = text[:_REASON_CHARACTERS].rsplit(" ", 1)[0] + " ..."
    return text or "uv gave no reason."


def _guilty_line(
    source: EnvironmentSource,
    stderr: str,
    resolves_without: Callable[[RequestedPackage], bool],
) -> RequestedPackage | None:
    """The first of the lines in uv's explanation without which the rest resolves."""
    mentioned: dict[str, int] = {
        canonicalize_name(match[0]): match.start()
        for match in reversed(list(_NAME.finditer(stderr)))
    }
    suspects = [package for package in source.packages if package.name in mentioned]
    suspects.sort(key=lambda package: mentioned[package.name])
    if len(suspects) > 1:
        for package in suspects[:_TRIED]:
            if resolves_without(package):
                return package
    limits = [package for package in source.constraints if package.name in mentioned]
    return next(iter([*suspects, *limits]), None)

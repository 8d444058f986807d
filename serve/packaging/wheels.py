"""Chooses one wheel among those that fit, by its file name alone."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from packaging.utils import InvalidWheelFilename, parse_wheel_filename

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from serve.packaging.platforms import Target


def best_wheel(
    files: Iterable[dict[str, Any]], target: Target, allowed: Collection[str] | None
) -> str | None:
    """The sha256 of the most specific wheel of a `pylock.toml` entry; None where none is allowed.

    Args:
        files: Entries with `url`, `path` or `name`, and `hashes`; all of them fit the target.
        target: Python version and platform.
        allowed: Hashes to choose among; None for all.
    """
    candidates = []
    for file in files:
        sha256 = str(file.get("hashes", {}).get("sha256", ""))
        if sha256 and (allowed is None or sha256 in allowed):
            name = _file_name(file)
            candidates.append((_rank(name, target), name, sha256))
    return max(candidates)[2] if candidates else None


def _file_name(file: dict[str, Any]) -> str:
    if "name" in file:
        return str(file["name"])
    location = urlsplit(str(file.get("url", ""))).path or str(file.get("path", ""))
    return unquote(location.rsplit("/", 1)[-1])


def _rank(name: str, target: Target) -> tuple[int, int, int, int]:
    """Higher is better: compiled for this Python, then for an older one, then pure Python."""
    try:
        _, _, build, tags = parse_wheel_filename(name)
    except InvalidWheelFilename:
        return (0, 0, 0, 0)
    minor = target.python.removeprefix("3.")
    ranks = []
    for tag in tags:
        native = int(tag.platform != "any")
        python = re.fullmatch(r"[a-z]+3([0-9]{1,2})", tag.interpreter)
        version = int(python[1]) if python else 0
        exact = int(tag.abi == f"cp3{minor}")
        ranks.append((native, exact, version, build[0] if build else 0))
    return max(ranks)

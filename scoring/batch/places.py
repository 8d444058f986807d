"""Where a result may not be: among the rows that it is made from."""

from __future__ import annotations

import os
from collections.abc import Iterable
from fnmatch import fnmatchcase

from scoring.batch.stores import is_hidden, is_url
from scoring.errors import UsageError

_GLOB = frozenset("*?[")


def require_apart(source: str, output: str, files: Iterable[str] = ()) -> None:
    """Refuses a result that would take the place of the dataset, or become a part of it.

    The first would be lost, and a run with the second could not go on: its own result would be
    read as rows.

    Args:
        source: The dataset, as the user named it.
        output: The place of the result.
        files: Of the dataset, where they are known.

    Raises:
        UsageError: It would.
    """
    place, given = _whole(output), _whole(source)
    known = {_whole(each) for each in files}
    if place in known or any(each.startswith(f"{place}/") for each in known):
        raise UsageError(
            f"OUTPUT is {output!r}, which INPUT reads: the rows would be lost.",
            hint="Choose another place for the result.",
            where="OUTPUT",
        )
    if _holds(given, place):
        raise UsageError(
            f"OUTPUT is {output!r}, which is a part of INPUT: it would be read as rows by the "
            "next run.",
            hint="Choose a place beside INPUT, or one whose name begins with '_', which is passed "
            "over.",
            where="OUTPUT",
        )


def _holds(source: str, place: str) -> bool:
    """Whether a folder, or a glob, has the place in it."""
    if not _GLOB & set(source):
        inside = place == source or place.startswith(f"{source}/")
        rest = place.removeprefix(source).strip("/").split("/")
        return inside and not is_hidden(tuple(rest))
    if "**" in source:
        return fnmatchcase(place, source)
    steps, wanted = place.split("/"), source.split("/")
    return len(steps) == len(wanted) and all(map(fnmatchcase, steps, wanted))


def _whole(place: str) -> str:
    """A place as it is compared: links of this machine are followed."""
    if is_url(place):
        scheme, _, path = place.partition("://")
        return f"{scheme}://{path.strip('/')}"
    path = place.removeprefix("file://")
    return (path if _GLOB & set(path) else os.path.realpath(path)).rstrip("/")

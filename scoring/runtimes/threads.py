"""How many threads a runtime may use for one request."""

from __future__ import annotations

import os

from scoring.errors import ModelFileError

_share = 0


def set_share(count: int) -> None:
    """Says how many threads may compute at once in this process: its share of the cores."""
    global _share  # noqa: PLW0603 - a fact about the process, known once, before models are loaded
    _share = count


def share() -> int:
    """How many threads may compute at once in this process; all cores that it may use by itself."""
    if _share:
        return _share
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def threads(variable: str) -> int:
    """The number in an environment variable: 1 where it is unset, the process's share for 0.

    Small models are fastest on one thread, and workers share the cores between requests: no more
    than this process's share is ever given.

    Raises:
        ModelFileError: The variable holds no such number.
    """
    text = os.environ.get(variable, "").strip() or "1"
    if not (text.isascii() and text.isdigit() and int(text) <= 1024):  # noqa: PLR2004
        raise ModelFileError(
            f"{variable} is {text!r}, not a number of threads.",
            hint="Set it to 1, to more for large models, or to 0 for this process's share of the "
            "cores.",
            where=variable,
        )
    return min(int(text) or share(), share())

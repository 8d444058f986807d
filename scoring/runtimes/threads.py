"""How many threads a runtime may use for one request."""

from __future__ import annotations

import os

from scoring.errors import ModelFileError


def threads(variable: str) -> int:
    """The number in an environment variable; 1 where it is unset, 0 for all cores.

    Small models are fastest on one thread, and workers share the cores between requests.

    Raises:
        ModelFileError: The variable holds no such number.
    """
    text = os.environ.get(variable, "").strip() or "1"
    if not (text.isascii() and text.isdigit() and int(text) <= 1024):  # noqa: PLR2004
        raise ModelFileError(
            f"{variable} is {text!r}, not a number of threads.",
            hint="Set it to 1, to more for large models, or to 0 for all cores.",
            where=variable,
        )
    return int(text)

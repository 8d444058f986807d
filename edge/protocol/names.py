"""Names of sites, devices and modules: each fills one level of a topic, a path and a label."""

from __future__ import annotations

import re

from scoring.errors import InvalidNameError

_FORM = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,61}[a-z0-9])?", re.ASCII)
_SHOWN = 100


def is_name(text: str) -> bool:
    """Whether the text may name a site, a device or a module."""
    return _FORM.fullmatch(text) is not None and ".." not in text


def check_name(text: str, what: str) -> str:
    """The text itself, if it may be a name.

    Args:
        text: From a user or a peer.
        what: `device`, `site` or `module`, for the message.

    Raises:
        InvalidNameError: It may not.
    """
    if not is_name(text):
        raise InvalidNameError(
            f"{text[:_SHOWN]!a} cannot name a {what}.",
            hint="Use 1 to 63 small letters, digits, '-', '_' and '.', with a letter or digit at "
            "both ends.",
            where=what,
        )
    return text

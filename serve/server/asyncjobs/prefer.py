"""The `Prefer` header (RFC 7240). Pure."""

from __future__ import annotations

import re
from typing import NamedTuple

_PREFERENCE = re.compile(
    r"\s*([!#$%&'*+.^_`|~0-9A-Za-z-]+)\s*(?:=\s*(\"(?:[^\"\\]|\\.)*\"|[^\s;,\"]*))?"
)
# A quote that is never closed ends with the header: looking for its end twice would take for ever.
_PART = re.compile(r'(?:[^,"]|"(?:[^"\\]|\\.)*+"?)+')
_LONGEST_WAIT_S = 60.0
_DIGITS = 9


class Preference(NamedTuple):
    """What a sender prefers.

    Attributes:
        respond_async: To be answered later.
        wait_s: And how long it would wait for the answer itself.
    """

    respond_async: bool
    wait_s: float


def parse(header: str) -> Preference:
    """Reads `Prefer`; what is not understood is not preferred. Of one that comes twice, the first.

    Args:
        header: All its values, joined with commas.
    """
    found: dict[str, str] = {}
    for part in _split(header):
        match = _PREFERENCE.match(part)
        if match:
            found.setdefault(match[1].lower(), (match[2] or "").strip('"'))
    wait = found.get("wait", "")
    seconds = float(wait) if wait.isascii() and wait.isdigit() and len(wait) <= _DIGITS else 0.0
    return Preference("respond-async" in found, min(seconds, _LONGEST_WAIT_S))


def _split(header: str) -> list[str]:
    """The preferences, without their parameters."""
    return [part.group().partition(";")[0] for part in _PART.finditer(header)]

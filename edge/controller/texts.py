"""What people write of deployments, read: durations, rates, windows. Pure."""

from __future__ import annotations

import re
from typing import Final

import msgspec

from edge.protocol.messages import Window
from scoring.errors import UsageError

DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")

_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)?", re.ASCII)
_SECONDS: Final = {"ms": 0.001, "": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_BYTES: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([kMG]?)B?(?:/s)?", re.ASCII)
_POWERS: Final = {"": 1, "k": 1000, "M": 1000**2, "G": 1000**3}
_WINDOW: Final = re.compile(
    r"(\d\d?):(\d\d)-(\d\d?):(\d\d)(?:/([a-z,]+))?", re.ASCII | re.IGNORECASE
)


def duration(text: str, where: str = "") -> float:
    """Seconds of `90s`, `30m`, `2h`, `1d`; a number alone is in seconds. Raises UsageError."""
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise UsageError(
            f"{text[:40]!a} is no duration.", hint="Write 90s, 30m, 2h or 1d.", where=where
        )
    return float(match[1]) * _SECONDS[match[2] or ""]


def rate(text: str, where: str = "") -> int:
    """Bytes a second of `500k`, `2M`. Raises UsageError."""
    match = _BYTES.fullmatch(text.strip())
    if match is None:
        raise UsageError(
            f"{text[:40]!a} is no rate.", hint="Write 500k or 2M (bytes a second).", where=where
        )
    return int(float(match[1]) * _POWERS[match[2]])


def window(text: str, where: str = "") -> Window | None:
    """When devices may switch: `22:00-04:00`, `22:00-04:00/sat,sun`; None for an empty text.

    Raises:
        UsageError: It is no window.
    """
    if not text.strip():
        return None
    match = _WINDOW.fullmatch(text.strip())
    days = [day for day in (match[5] or "").lower().split(",") if day] if match else []
    if match is None or not set(days) <= set(DAYS):
        raise _no_window(text, where)
    begins, ends = int(match[1]) * 60 + int(match[2]), int(match[3]) * 60 + int(match[4])
    if int(match[2]) > 59 or int(match[4]) > 59:  # noqa: PLR2004 - minutes of an hour
        raise _no_window(text, where)
    try:
        return msgspec.convert(
            {"begins": begins, "ends": ends, "days": [DAYS.index(day) for day in days]}, Window
        )
    except msgspec.ValidationError as error:
        raise _no_window(text, where) from error


def _no_window(text: str, where: str) -> UsageError:
    return UsageError(
        f"{text[:40]!a} is no window.",
        hint="Write 22:00-04:00, or 22:00-04:00/sat,sun.",
        where=where,
    )

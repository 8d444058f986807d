"""The one place where errors become exit statuses: 0 done, 1 failed, 2 wrong usage."""

from __future__ import annotations

from scoring.errors import FieldpostError, UsageError

DONE = 0
FAILED = 1
USAGE = 2
INTERRUPTED = 130


def exit_status(error: FieldpostError) -> int:
    """The status for an error: 2 where other arguments would have helped, else 1."""
    return USAGE if isinstance(error, UsageError) else FAILED

"""The one place where errors become exit statuses: 0 done, 1 failed, 2 wrong usage."""

from __future__ import annotations

from scoring.errors import FieldpostError, UsageError

DONE = 0
FAILED = 1
USAGE = 2
INTERRUPTED = 130


def exit_status(kind: type[FieldpostError]) -> int:
    """The status for a kind of error: 2 where other arguments would have helped, else 1."""
    return USAGE if issubclass(kind, UsageError) else FAILED

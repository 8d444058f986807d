"""What the database's errors mean to a user, and which of them pass by themselves."""

from __future__ import annotations

import os
import re
import sqlite3
from typing import TYPE_CHECKING

from scoring.errors import StorageFullError, WorkspaceError

if TYPE_CHECKING:
    from pathlib import Path

    from serve.registry.location import Location

_PASSING = (
    r"(?i)connection refused|connection reset|timeout expired|connection timeout|starting up"
    r"|shutting down|recovery mode|not yet accepting|server closed the connection"
    r"|terminating connection|too many clients|remaining connection slots|no such file or directory"
    r"|temporary failure|network is unreachable|no route to host"
)
_PASSING_STATES = ("08", "57P", "53300")
_DISK_FULL_STATE = "53100"


class UnreachableError(WorkspaceError):
    """The database server does not answer now."""

    code = "workspace_unreachable"
    retryable = True


def is_passing(error: BaseException) -> bool:
    """Whether a failed connection may succeed a little later."""
    if isinstance(error, sqlite3.Error):
        return False
    state = getattr(error, "sqlstate", None)
    if state:
        return str(state).startswith(_PASSING_STATES)
    return bool(re.search(_PASSING, str(error)))


def translate(error: Exception, location: Location) -> WorkspaceError:
    """The error that tells a user what a database error means, passwords masked."""
    if isinstance(error, sqlite3.Error) and location.database_file is not None:
        return _from_sqlite(error, location.database_file)
    return _from_postgresql(error, location)


def _from_sqlite(error: sqlite3.Error, path: Path) -> WorkspaceError:
    name = str(getattr(error, "sqlite_errorname", ""))
    if name == "SQLITE_FULL" or (name.startswith(_MAY_BE_FULL) and _is_full(path.parent)):
        return StorageFullError(
            f"No space is left to write {path}. The registry is as it was.",
            hint="Free space (or raise the quota) on that disk and run the command again.",
        )
    for start, message, hint in _SQLITE_MEANINGS:
        if name.startswith(start):
            return WorkspaceError(message.format(path=path, error=error), hint=hint)
    return WorkspaceError(f"The database {path} failed: {error}.")


_MAY_BE_FULL = ("SQLITE_IOERR", "SQLITE_CANTOPEN")
_SQLITE_MEANINGS = (
    (
        ("SQLITE_NOTADB", "SQLITE_CORRUPT"),
        "The database {path} is damaged: {error}.",
        (
            "Restore it from a backup, or move it away to begin with an empty registry; "
            "the blobs are untouched."
        ),
    ),
    (
        ("SQLITE_READONLY", "SQLITE_PERM", "SQLITE_AUTH"),
        "The database {path} cannot be written: {error}.",
        (
            "Give this user write access to the file and its folder, or choose another workspace "
            "with FIELDPOST_WORKSPACE."
        ),
    ),
    (
        ("SQLITE_CANTOPEN",),
        "The database {path} cannot be opened: {error}.",
        (
            "Check that the folder exists, that this user may write in it, and that nothing but a "
            "file has this name."
        ),
    ),
    (
        ("SQLITE_BUSY", "SQLITE_LOCKED"),
        "Another process has kept the database {path} locked for too long.",
        "Wait until it has finished and run the command again.",
    ),
    (
        ("SQLITE_IOERR",),
        "The disk failed under the database {path}: {error}. The registry is as it was.",
        "Check the disk and the kernel's log, then run the command again.",
    ),
)


def _is_full(folder: Path) -> bool:
    try:
        return os.statvfs(folder).f_bavail == 0
    except OSError:
        return False


def _from_postgresql(error: BaseException, location: Location) -> WorkspaceError:
    state = str(getattr(error, "sqlstate", None) or "")
    reason = location.masked(" ".join(str(error).split()))
    if state == _DISK_FULL_STATE:
        return StorageFullError(
            f"The database server of {location} has no space left. The registry is as it was.",
            hint="Free space on the server and run the command again.",
        )
    if is_passing(error):
        return UnreachableError(
            f"The database of {location} does not answer: {reason}",
            hint="Check that the server runs and can be reached from here, then run the command "
            "again.",
        )
    return WorkspaceError(
        f"The database of {location} refused: {reason}", hint=_postgresql_hint(reason)
    )


def _postgresql_hint(reason: str) -> str:
    for pattern, hint in _POSTGRESQL_HINTS:
        if re.search(pattern, reason, re.IGNORECASE):
            return hint
    return "Check the workspace's URL and the server's log."


_POSTGRESQL_HINTS = (
    (r"authentication failed|no password supplied", "Check the user and the password in the URL."),
    (r"database .* does not exist", "Create it with 'createdb', or correct the URL."),
    (r"role .* does not exist", "Create the role with 'createuser', or correct the URL."),
    (
        r"permission denied|no schema has been selected",
        "Grant this role CREATE on the schema and access to its tables.",
    ),
    (r"could not translate host name|resolve", "Check the host name in the URL."),
    (
        r"invalid percent-encoded|invalid URI|invalid connection option",
        "Correct the URL; special characters of the password are written as %XX.",
    ),
    (r"lock timeout", "Another command writes for a long time; run this one again."),
)

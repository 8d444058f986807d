"""Who registers, when, and from which git commit."""

from __future__ import annotations

import datetime as dt
import getpass
import os
import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from pathlib import Path

GIT_TIMEOUT_S = 10

_COMMIT = re.compile(r"[0-9a-f]{40,64}")


class GitSource(NamedTuple):
    """The state of a git repository.

    Attributes:
        commit: The commit that is checked out; None outside of a repository.
        dirty: Whether tracked files differ from it; None outside of a repository.
    """

    commit: str | None
    dirty: bool | None


def now() -> str:
    """The time, as records hold it: UTC, ISO 8601, microseconds."""
    return dt.datetime.now(dt.UTC).isoformat(timespec="microseconds")


def user() -> str:
    """The name of the user, or the number where it has no name (as in a container)."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def git_source(path: Path) -> GitSource:
    """The commit of the repository that a file or folder is in, where git can tell."""
    folder = path if path.is_dir() else path.parent
    commit = _git(folder, "rev-parse", "--verify", "--quiet", "HEAD")
    if commit is None or not _COMMIT.fullmatch(commit):
        return GitSource(None, None)
    changes = _git(folder, "status", "--porcelain", "--untracked-files=no", "--ignore-submodules")
    return GitSource(commit, None if changes is None else bool(changes))


def _git(folder: Path, *arguments: str) -> str | None:
    # GIT_DIR and its kin, as set inside hooks, would name another repository. A repository's own
    # configuration must not get to run a program because a model lies in it.
    environ = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    command = ["git", "-c", "core.fsmonitor=false", "-C", str(folder), *arguments]
    import subprocess  # noqa: PLC0415 - most commands ask no git

    try:
        done = subprocess.run(  # noqa: S603
            command,
            env=environ | {"GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=GIT_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    if done.returncode:
        return None
    return done.stdout.decode(errors="replace").strip()

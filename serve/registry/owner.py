"""Which process made a pending revision, and whether it still lives."""

from __future__ import annotations

import os
import platform
import time
from pathlib import Path

import msgspec

MAX_AGE_S = 3600.0
"""How long the word of a process on another machine is taken for."""


_START_TIME = 19


class Owner(msgspec.Struct, frozen=True):
    """A process, told apart from a later one of the same number.

    Attributes:
        host: The machine, its boot and its process namespace.
        pid: The process.
        started: When the process was started, as the kernel counts it; empty where unknown.
        at: When the owner was noted, in seconds of the Unix epoch.
    """

    host: str
    pid: int
    started: str
    at: float


def current() -> Owner:
    """This process."""
    return Owner(host=_host(), pid=os.getpid(), started=_started(os.getpid()), at=time.time())


def encode(owner: Owner) -> str:
    """The owner as JSON."""
    return msgspec.json.encode(owner).decode()


def is_gone(text: str) -> bool:
    """Whether the owner that `encode` wrote is gone, as far as can be told from here."""
    try:
        owner = msgspec.json.decode(text, type=Owner)
    except msgspec.DecodeError:
        return True
    if owner.host != _host():
        return time.time() - owner.at > MAX_AGE_S
    return not _is_alive(owner.pid) or _started(owner.pid) != owner.started


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _host() -> str:
    parts = (platform.node(), _read("/proc/sys/kernel/random/boot_id"), _namespace())
    return "/".join(parts)


def _namespace() -> str:
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""


def _started(pid: int) -> str:
    # The command in parentheses may hold spaces; the start time is the 20th field after it.
    fields = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return "".join(fields[_START_TIME : _START_TIME + 1])


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""

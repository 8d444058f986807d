"""What the kernel says of a process. Where there is no `/proc`, only of this one."""

from __future__ import annotations

import os
import resource
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_PROC = Path("/proc")
# Fields of /proc/PID/stat after the name, which is in parentheses and may hold anything.
_STATE, _USER, _SYSTEM, _STARTED, _VIRTUAL, _RESIDENT = 0, 11, 12, 19, 20, 21
_DEAD = "ZX"


@dataclass(frozen=True, slots=True)
class ProcessInfo:
    """A process, in the units of the metrics; None: not known here.

    Attributes:
        cpu_s: User and system time.
        resident_bytes: Memory that it occupies.
        virtual_bytes: Address space.
        started_s: Since the epoch.
        open_fds: How many descriptors are open.
        max_fds: How many may be.
    """

    cpu_s: float
    resident_bytes: float
    virtual_bytes: float | None = None
    started_s: float | None = None
    open_fds: int | None = None
    max_fds: float | None = None


def start_ticks(pid: int) -> int:
    """When a process started, in the kernel's ticks; 0: it is not there, or nobody knows."""
    fields = _stat(pid)
    return int(fields[_STARTED]) if fields and fields[_STATE] not in _DEAD else 0


def is_alive(pid: int, ticks: int) -> bool:
    """Whether the process that started at that time still runs."""
    if ticks:
        return start_ticks(pid) == ticks
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def read(pid: int) -> ProcessInfo | None:
    """What is known of a process; None where that is nothing."""
    fields = _stat(pid)
    if fields is None:
        return _own() if pid == os.getpid() else None
    per_second = os.sysconf("SC_CLK_TCK")
    return ProcessInfo(
        cpu_s=(int(fields[_USER]) + int(fields[_SYSTEM])) / per_second,
        resident_bytes=int(fields[_RESIDENT]) * resource.getpagesize(),
        virtual_bytes=int(fields[_VIRTUAL]),
        started_s=_boot_time() + int(fields[_STARTED]) / per_second,
        open_fds=_open_fds(pid),
        max_fds=_max_fds(pid),
    )


def _stat(pid: int) -> list[str] | None:
    try:
        text = (_PROC / str(pid) / "stat").read_text("latin-1")
    except OSError:
        return None
    return text.rpartition(")")[2].split()


@cache
def _boot_time() -> int:
    try:
        lines = (_PROC / "stat").read_text("latin-1").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("btime ")), 0)


def _open_fds(pid: int) -> int | None:
    try:
        return len(os.listdir(_PROC / str(pid) / "fd"))  # noqa: PTH208 - a count, of thousands
    except OSError:
        return None


def _max_fds(pid: int) -> float | None:
    try:
        lines = (_PROC / str(pid) / "limits").read_text("latin-1").splitlines()
    except OSError:
        return None
    words = next((line.split() for line in lines if line.startswith("Max open files")), None)
    if words is None:
        return None
    return float("inf") if words[3] == "unlimited" else float(words[3])


def _own() -> ProcessInfo:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Kilobytes on Linux, bytes on macOS, which is where this is needed.
    return ProcessInfo(usage.ru_utime + usage.ru_stime, float(usage.ru_maxrss), max_fds=soft)

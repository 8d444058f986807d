"""What the operating system knows of processes, so that a reused pid fools nobody."""

from __future__ import annotations

import contextlib
import os
import platform
import signal
import time
from pathlib import Path

import msgspec

_STAT_FIELDS_AFTER_NAME = 19  # the start time is field 22, the name is field 2
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class ProcessId(msgspec.Struct, frozen=True):
    """A process, told apart from a later one of the same number.

    Attributes:
        pid: The number.
        started: When it was started, as the kernel counts it; empty where that is not known.
    """

    pid: int
    started: str


def identify(pid: int) -> ProcessId:
    """The process that has this number now."""
    return ProcessId(pid, _started(pid))


def is_alive(process: ProcessId) -> bool:
    """Whether this very process still runs (a zombie does not)."""
    return bool(process.started) and _started(process.pid) == process.started


def end(process: ProcessId, grace_s: float) -> None:
    """Waits for a process that is about to go, and kills it and its group after the limit."""
    deadline = time.monotonic() + grace_s
    while is_alive(process):
        if time.monotonic() >= deadline:
            _kill(process)
        time.sleep(0.02)


def rss_bytes(pid: int) -> int | None:
    """Resident memory; None where it is not known."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_BYTES
    except (OSError, IndexError, ValueError):
        return None


def boot_id() -> str:
    """What is the same until the machine restarts; empty where it is not known."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
    return f"{platform.node()}/{boot}"


def _kill(process: ProcessId) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        descriptor = os.pidfd_open(process.pid)
        try:
            if is_alive(process):  # the descriptor and the check mean the same process
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
                os.killpg(process.pid, signal.SIGKILL)
        finally:
            os.close(descriptor)


def _started(pid: int) -> str:
    """The start time; empty for no such process or a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    fields = stat.rpartition(")")[2].split()
    return "" if fields[0] in {"Z", "X"} else fields[_STAT_FIELDS_AFTER_NAME]

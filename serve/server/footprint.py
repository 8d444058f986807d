"""How much memory workers hold, and when one that holds too much is replaced."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Callable

    from serve.server.restarts import Limits

Verdict = Literal["fine", "replace", "too_soon", "waiting"]
"""`too_soon` is said once of a worker that has to wait; after that it is `waiting`."""

MIB = 1 << 20
_PROC = Path("/proc")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_GROUP = 2  # the field of /proc/PID/stat behind the name, counted from 0
_RESIDENT = 1


class Leash:
    """Judges the workers of one place in a pool. Pure but for the clock.

    A model that needs more than the limit would be replaced for ever: one that is over it too soon
    has to wait, and its successors twice as long each time, until one has served that long.

    Args:
        limits: Of the pool.
        clock: Monotonic seconds.

    Attributes:
        pause_s: How old a worker has to be, now, before it is replaced.
    """

    def __init__(self, limits: Limits, clock: Callable[[], float] = time.monotonic) -> None:
        self.pause_s = limits.replace_pause_s
        self._limits = limits
        self._clock = clock
        self._waiting: float | None = None

    def judge(self, ready_at: float, used_bytes: int) -> Verdict:
        """What is to be done with a worker.

        Args:
            ready_at: When it became ready; it stands for the worker.
            used_bytes: The memory that it holds.
        """
        age_s = self._clock() - ready_at
        if used_bytes <= self._limits.worker_max_mib * MIB:
            if age_s >= self.pause_s:
                self.pause_s = self._limits.replace_pause_s
            return "fine"
        if age_s >= self.pause_s:
            return "replace"
        if self._waiting == ready_at:
            return "waiting"
        self._waiting = ready_at
        self.lengthen()
        return "too_soon"

    def lengthen(self) -> None:
        """Doubles the pause: another attempt so soon would end alike."""
        self.pause_s = min(self.pause_s * 2, self._limits.longest_replace_pause_s)


def is_known() -> bool:
    """Whether this system tells how much memory processes hold."""
    return (_PROC / "self" / "statm").exists()


def held_bytes(leader: int) -> int:
    """The memory of a process and of all in its group: its children, unless they left it.

    Of a lone process, what is resident. Of several, their proportional parts: forked children
    share pages with their parent, which would be counted again for each.
    """
    members = _members(leader)
    if len(members) == 1:
        return _resident(members[0])
    return sum(_proportional(pid) for pid in members)


def _members(leader: int) -> list[int]:
    pids = [int(path.name) for path in _PROC.iterdir() if path.name.isdigit()]
    return [pid for pid in pids if _group(pid) == leader]


def _group(pid: int) -> int:
    try:
        stat = (_PROC / str(pid) / "stat").read_text("latin-1")
    except OSError:
        return 0
    return int(stat.rpartition(")")[2].split()[_GROUP])


def _resident(pid: int) -> int:
    try:
        return int((_PROC / str(pid) / "statm").read_text().split()[_RESIDENT]) * _PAGE_BYTES
    except (OSError, IndexError):
        return 0


def _proportional(pid: int) -> int:
    try:
        lines = (_PROC / str(pid) / "smaps_rollup").read_text().splitlines()
    except OSError:  # gone, or not allowed
        return _resident(pid)
    kib = next((line.split()[1] for line in lines if line.startswith("Pss:")), "0")
    return int(kib) * 1024

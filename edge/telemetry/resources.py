"""What a device has left of itself: processor, memory, disk, temperature; from /proc and /sys."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path
from typing import Final

_KIB: Final = 1024
_MILLI: Final = 1000.0
_IDLE: Final = (3, 4)  # idle and waiting for a disk


class Resources:
    """Looks at the machine; one thread.

    Args:
        folder: Of its disk is told how much is free.
        root: Where `proc` and `sys` are.
    """

    def __init__(self, folder: Path, *, root: Path = Path("/")) -> None:
        self._folder = folder
        self._root = root
        self._last = self._ticks()

    def look(self) -> dict[str, float]:
        """What is known now; processor time since the last look. What cannot be read is left out.

        Returns:
            `cpu` (part of all cores), `load_1m`, `memory_total_bytes`, `memory_free_bytes`,
            `disk_total_bytes`, `disk_free_bytes`, `celsius`, `uptime_s`.
        """
        found: dict[str, float] = {}
        busy, total = self._ticks()
        before_busy, before_total = self._last
        if total > before_total:
            part = (busy - before_busy) / (total - before_total)
            found["cpu"] = round(min(max(part, 0.0), 1.0), 4)
        self._last = busy, total
        found |= self._memory()
        with contextlib.suppress(OSError):
            disk = shutil.disk_usage(self._folder)
            found |= {"disk_total_bytes": disk.total, "disk_free_bytes": disk.free}
        for name, path in (("load_1m", "proc/loadavg"), ("uptime_s", "proc/uptime")):
            with contextlib.suppress(OSError, ValueError, IndexError):
                found[name] = float(self._text(path).split()[0])
        return found | self._temperature()

    def _ticks(self) -> tuple[float, float]:
        """Busy and all ticks of all cores, since the start of the machine."""
        try:
            ticks = [float(part) for part in self._text("proc/stat").splitlines()[0].split()[1:9]]
        except (OSError, ValueError, IndexError):
            return 0.0, 0.0
        total = sum(ticks)
        return total - sum(ticks[at] for at in _IDLE if at < len(ticks)), total

    def _memory(self) -> dict[str, float]:
        found: dict[str, float] = {}
        names = {"MemTotal": "memory_total_bytes", "MemAvailable": "memory_free_bytes"}
        with contextlib.suppress(OSError, ValueError, IndexError):
            for line in self._text("proc/meminfo").splitlines():
                key, _, rest = line.partition(":")
                if key in names:
                    found[names[key]] = int(rest.split()[0]) * _KIB
        return found

    def _temperature(self) -> dict[str, float]:
        """Of the hottest zone."""
        found = []
        for path in sorted((self._root / "sys/class/thermal").glob("thermal_zone*/temp")):
            with contextlib.suppress(OSError, ValueError):
                found.append(float(path.read_text().strip()) / _MILLI)
        return {"celsius": max(found)} if found else {}

    def _text(self, path: str) -> str:
        return (self._root / path).read_text(errors="replace")


def own() -> dict[str, float]:
    """What this process takes: resident bytes and processor seconds."""
    times = os.times()
    found = {"cpu_s": round(times.user + times.system, 3)}
    with contextlib.suppress(OSError, ValueError, IndexError):
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        found["resident_bytes"] = pages * os.sysconf("SC_PAGE_SIZE")
    return found

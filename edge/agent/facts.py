"""What a device knows of itself, for conditions to ask for."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
from pathlib import Path
from typing import Final

from scoring.packages.platformindex import this_platform

Fact = str | int | float | bool

_MIB: Final = 1 << 20
_ENGINES: Final = ("docker", "podman")
_MODEL: Final = Path("/proc/device-tree/model")
_MOST_MODEL: Final = 200


def facts(state: Path) -> dict[str, Fact]:
    """Platform, memory, disk, runtimes, versions.

    Args:
        state: The agent's folder: of its disk is told how much is free.
    """
    disk = shutil.disk_usage(state)
    found: dict[str, Fact] = {
        "platform": this_platform(),
        "machine": platform.machine(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "cores": os.cpu_count() or 1,
        "memory_mib": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // _MIB,
        "disk_mib": disk.total // _MIB,
        # In steps, so that a report is not news each time that a log grows.
        "disk_free_mib": disk.free // _MIB // 64 * 64,
        "runtimes": ",".join(["process", *(name for name in _ENGINES if shutil.which(name))]),
    }
    found |= _system()
    return found


def _system() -> dict[str, Fact]:
    found: dict[str, Fact] = {}
    try:
        release = platform.freedesktop_os_release()
        found["os"] = release.get("ID", "linux")
        found["os_version"] = release.get("VERSION_ID", "")
    except OSError:
        found["os"] = "linux"
    with contextlib.suppress(OSError):
        found["model"] = _MODEL.read_text(errors="replace").strip("\0\n ")[:_MOST_MODEL]
    return found

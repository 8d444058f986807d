"""How much memory there is, so that what cannot fit is refused before it is tried."""

from __future__ import annotations

import os
from pathlib import Path

from scoring.errors import CircuitTooLargeError

MAX_FILE_BYTES = (2 << 30) - (16 << 20)
"""Of the constants of an ONNX file: protobuf takes less than 2 GiB, with all else that is in it."""
_CGROUP = Path("/sys/fs/cgroup")
_MEMINFO = Path("/proc/meminfo")


def check(needed: int, what: str) -> None:
    """Raises `CircuitTooLargeError` where `needed` bytes are more than what is free.

    Args:
        needed: Bytes.
        what: What they are for, as it appears in the message: "the states of 20 qubits".
    """
    free = available()
    if needed > free:
        raise CircuitTooLargeError(
            f"{what} need {_size(needed)} of memory; {_size(free)} are free.",
            hint="Use fewer qubits, or a machine with more memory.",
        )


def check_file(needed: int, what: str) -> None:
    """Raises `CircuitTooLargeError` where `needed` bytes are more than a file of ONNX takes.

    Args:
        needed: Bytes.
        what: What they are for, as for `check`.
    """
    if needed > MAX_FILE_BYTES:
        raise CircuitTooLargeError(
            f"{what} would take {_size(needed)}; a file of ONNX takes less than 2 GiB.",
            hint="Use the fused form, fewer qubits, or fewer features.",
        )


def available() -> int:
    """Bytes that this process may still take: of the machine, and of its control group."""
    return min(_of_machine(), _of_group())


def _of_machine() -> int:
    try:
        for line in _MEMINFO.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        pass
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _of_group() -> int:
    """What is left below the control group's limit; a huge number where there is none."""
    try:
        limit = int((_CGROUP / "memory.max").read_text())
        return max(0, limit - int((_CGROUP / "memory.current").read_text()))
    except (OSError, ValueError):  # no group, or the limit "max"
        return 2**63


def _size(count: int) -> str:
    for unit in ("B", "KiB", "MiB", "GiB", "TiB", "PiB"):
        if count < 1024 or unit == "PiB":  # noqa: PLR2004
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024  # type: ignore[assignment]
    raise AssertionError

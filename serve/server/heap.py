"""What the C library does with the memory that requests free."""

from __future__ import annotations

import ctypes

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_KEPT_BYTES = 64 << 20
_MAPPED_BYTES = 8 << 20


def keep_freed_memory() -> bool:
    """Keeps what requests free for the next ones, up to 64 MiB; arrays over 8 MiB go back at once.

    Bodies and arrays of 100 kB and more would else be given back to the system after each request,
    and every page of them be faulted in again for the next: twice the cost of the rest together.

    Returns:
        False where the C library has no such setting (musl, macOS).
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    kept = mallopt(_TRIM_THRESHOLD, _KEPT_BYTES)
    return bool(kept and mallopt(_MMAP_THRESHOLD, _MAPPED_BYTES))

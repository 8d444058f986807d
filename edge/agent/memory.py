"""Keeps the agent small: what a fetch or a delta has taken goes back to the system."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import sys
from typing import Final

_TRIM_THRESHOLD: Final = -1
_MMAP_THRESHOLD: Final = -3
_ARENA_MAX: Final = -8
_SMALL: Final = 64 << 10


def stay_small() -> None:
    """Has glibc keep one heap for all threads, and keep little of what was freed.

    Each thread would have a heap of its own, and hold on to its largest size; the agent has a dozen
    threads, of which nearly all sleep. Other libraries of C know no such settings: nothing is done.
    """
    with contextlib.suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        for setting, value in (
            (_ARENA_MAX, 1),
            (_TRIM_THRESHOLD, _SMALL),
            (_MMAP_THRESHOLD, _SMALL),
        ):
            library.mallopt(setting, value)


def forget(*modules: str) -> None:
    """Drops modules that were of use once: what is imported next takes their place."""
    for name in modules:
        sys.modules.pop(name, None)
    gc.collect()

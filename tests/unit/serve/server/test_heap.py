"""Freed memory is kept, in a process of its own: the setting lasts as long as its process."""

from __future__ import annotations

import subprocess
import sys

import pytest

_PROGRAM = """
import resource
from serve.server.heap import keep_freed_memory

kept = keep_freed_memory()
held = [bytes(200_000) for _ in range(16)]
del held
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(50):
    held = [bytearray(b"x") * 200_000 for _ in range(16)]
    del held
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def test_freed_memory_is_not_faulted_in_again() -> None:
    result = subprocess.run(
        [sys.executable, "-c", _PROGRAM], capture_output=True, text=True, check=True
    )
    kept, faults = result.stdout.split()
    if kept == "False":
        pytest.skip("this C library has no mallopt")
    assert int(faults) < 2000  # once around, instead of 49 pages for each of 800 arrays

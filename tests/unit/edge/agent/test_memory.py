"""The agent's heap."""

from __future__ import annotations

import subprocess
import sys

_BUSY = """
import sys, threading
from edge.agent import memory
if sys.argv[1] == "small":
    memory.stay_small()

together = threading.Barrier(8)

def work():
    together.wait()
    held = [bytearray(4000) for _ in range(2000)]
    together.wait()
    del held

threads = [threading.Thread(target=work) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(open("/proc/self/maps").read().count("---p 00000000 00:00 0"))
"""


def reserved(how: str) -> int:
    """How many heaps of threads there are: each keeps the addresses of its 64 MiB."""
    done = subprocess.run(
        [sys.executable, "-c", _BUSY, how], check=True, capture_output=True, text=True
    )
    return int(done.stdout)


def test_all_threads_share_one_heap() -> None:
    assert reserved("small") < reserved("usual") - 4

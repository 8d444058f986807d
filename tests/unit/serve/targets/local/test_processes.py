from __future__ import annotations

import os
import subprocess
import sys
import time

from serve.targets.local import processes
from serve.targets.local.processes import ProcessId


def sleeper(*extra: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])


def test_this_process_is_alive_and_has_memory() -> None:
    assert processes.is_alive(processes.identify(os.getpid()))
    assert (processes.rss_bytes(os.getpid()) or 0) > 1 << 20


def test_a_reused_pid_fools_nobody() -> None:
    with sleeper() as process:
        try:
            impostor = ProcessId(process.pid, "1")
            assert not processes.is_alive(impostor)
            processes.end(impostor, 0)
            assert process.poll() is None
            assert processes.is_alive(processes.identify(process.pid))
        finally:
            process.kill()


def test_a_zombie_is_not_alive() -> None:
    with sleeper() as process:
        known = processes.identify(process.pid)
        process.kill()
        deadline = time.monotonic() + 5
        while processes.is_alive(known):
            assert time.monotonic() < deadline
        assert process.poll() is not None


def test_a_process_that_does_not_go_is_killed_after_its_grace() -> None:
    with sleeper() as process:
        processes.end(processes.identify(process.pid), 0.05)
        assert process.wait(5) == -9


def test_a_process_that_never_was_is_gone() -> None:
    assert not processes.is_alive(ProcessId(2**22 + 1, "5"))
    assert processes.rss_bytes(2**22 + 1) is None
    processes.end(ProcessId(2**22 + 1, "5"), 0)


def test_the_boot_stays_the_same() -> None:
    assert processes.boot_id() == processes.boot_id() != ""

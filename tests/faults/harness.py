"""Kills a program, or fails its writes, at one step after another.

Two ways: `strace` stops a real command at its Nth system call of a kind; `kill_in_fork` needs no
strace and stops a function of this process, run in a child, at its Nth call of a Python function.
Either way the caller's `check` then looks at what is left.

By default a sample of the steps is tried; with FIELDPOST_TEST_LONG=1 every one.
"""

from __future__ import annotations

import collections
import os
import random
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import pytest

WRITES = ("write", "pwrite64", "writev", "ftruncate", "fallocate")
SYNCS = ("fsync", "fdatasync")
NAMES = (
    *("rename", "renameat", "renameat2", "link", "linkat", "unlink", "unlinkat"),
    *("mkdir", "mkdirat", "rmdir", "symlink", "symlinkat", "fchmod"),
)
WRITE_SYSCALLS = WRITES + SYNCS + NAMES

OS_STEPS = (
    *("write", "fsync", "replace", "rename", "unlink", "mkdir", "rmdir", "fchmod", "open"),
    *("link", "symlink", "truncate", "ftruncate"),
)

SAMPLE = 6
TIMEOUT_S = 120
LONG = os.environ.get("FIELDPOST_TEST_LONG") == "1"

_CALL = re.compile(r"^(\d+)\s+(\w+)\(")


class Step(NamedTuple):
    """The Nth system call of a kind that one thread of a program makes."""

    syscall: str
    number: int

    def __str__(self) -> str:
        return f"{self.syscall} number {self.number}"


Argv = Callable[[], Sequence[str | os.PathLike[str]]]
"""Makes a fresh state and says which command is to be run on it."""


def require_strace() -> str:
    """The path of strace, which works here; skips the test where it does not."""
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not installed")
    tried = subprocess.run([strace, "-qq", "true"], capture_output=True, check=False)
    if tried.returncode:
        pytest.skip("strace is not allowed to trace here")
    return strace


def kill_at_each_write(
    argv: Argv,
    check: Callable[[Step], None],
    *,
    syscalls: Sequence[str] = WRITE_SYSCALLS,
    env: Mapping[str, str] | None = None,
    sample: int = SAMPLE,
) -> list[Step]:
    """Runs a command again and again, killed with SIGKILL before one of its writes each time.

    Args:
        argv: Makes a fresh state and answers the command.
        check: Called after each kill; raises where what is left is broken.
        syscalls: The kinds of system calls to stop at.
        env: The command's environment variables.
        sample: How many steps to try, unless FIELDPOST_TEST_LONG=1.

    Returns:
        The steps at which it was killed.
    """
    steps = _sampled(_steps(argv, syscalls, env), sample)
    for step in steps:
        _run(argv(), f"{step.syscall}:signal=SIGKILL:when={step.number}", env)
        check(step)
    return steps


def fail_at_each_write(
    argv: Argv,
    check: Callable[[Step, int], None],
    *,
    error: str = "ENOSPC",
    syscalls: Sequence[str] = WRITES + NAMES,
    env: Mapping[str, str] | None = None,
    sample: int = SAMPLE,
) -> list[Step]:
    """Like `kill_at_each_write`, but the system call fails, and `check` also gets the exit code.

    Args:
        argv: Makes a fresh state and answers the command.
        check: Called after each run with the step and the exit code.
        error: The error's name.
        syscalls: The kinds of system calls that are to fail.
        env: The command's environment variables.
        sample: How many steps to try, unless FIELDPOST_TEST_LONG=1.
    """
    steps = _sampled(_steps(argv, syscalls, env), sample)
    for step in steps:
        code = _run(argv(), f"{step.syscall}:error={error}:when={step.number}", env)
        check(step, code)
    return steps


def _sampled(steps: list[Step], sample: int) -> list[Step]:
    return steps if LONG or len(steps) <= sample else sorted(random.sample(steps, sample))


def _steps(argv: Argv, syscalls: Sequence[str], env: Mapping[str, str] | None) -> list[Step]:
    """All steps of an undisturbed run, which must succeed."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        traced = ",".join(f"?{name}" for name in syscalls)
        command = [require_strace(), "-f", "-qq", "-o", log, "-e", f"trace={traced}", *argv()]
        done = subprocess.run(
            command, env=_environ(env), capture_output=True, timeout=TIMEOUT_S, check=False
        )
        assert done.returncode == 0, done.stderr.decode(errors="replace")
        lines = log.read_text(errors="replace").splitlines()
    # strace counts `when=N` for each thread on its own.
    counts: collections.Counter[tuple[str, str]] = collections.Counter()
    for match in filter(None, map(_CALL.match, lines)):
        counts[match[1], match[2]] += 1
    highest: dict[str, int] = {}
    for (_, syscall), count in counts.items():
        highest[syscall] = max(count, highest.get(syscall, 0))
    assert highest, "the command writes nothing: there is nothing to try"
    return [Step(name, number) for name in highest for number in range(1, highest[name] + 1)]


def _run(argv: Sequence[str | os.PathLike[str]], inject: str, env: Mapping[str, str] | None) -> int:
    syscall = inject.partition(":")[0]
    command = [require_strace(), "-f", "-qq", "-o", "/dev/null", "-e", f"trace={syscall}"]
    done = subprocess.run(
        [*command, "-e", f"inject={inject}", *argv],
        env=_environ(env),
        capture_output=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    return done.returncode


def _environ(env: Mapping[str, str] | None) -> dict[str, str]:
    # Bytecode that Python writes beside its sources is no step of the program.
    return {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **(env or {})}


Patch = tuple[Any, str]
"""An object and the name of a function on it: `(os, "fsync")`."""

PYTHON_STEPS: tuple[Patch, ...] = tuple((os, each) for each in OS_STEPS)


def kill_in_fork(
    prepare: Callable[[], Callable[[], None]],
    check: Callable[[int], None],
    *,
    steps: Sequence[Patch] = PYTHON_STEPS,
    sample: int = 40,
) -> int:
    """Runs a function in child processes, each killed at another step; needs no strace.

    Args:
        prepare: Makes a fresh state and answers the function to run on it.
        check: Called after each kill with the number of the step.
        steps: The functions whose calls are steps.
        sample: How many steps to try, unless FIELDPOST_TEST_LONG=1.

    Returns:
        How many steps an undisturbed run has.
    """
    total = _count(prepare(), steps)
    numbers = range(1, total + 1)
    chosen = numbers if LONG or total <= sample else sorted(random.sample(numbers, sample))
    killed = 0
    for number in chosen:
        status = _in_child(prepare(), steps, number, None)
        # Threads race: a run may have a step or two less than the one that was counted.
        assert status in (-signal.SIGKILL, 0), f"step {number} of {total} failed: {status}"
        killed += status != 0
        check(number)
    assert killed > len(chosen) // 2
    return total


def _count(action: Callable[[], None], steps: Sequence[Patch]) -> int:
    with tempfile.TemporaryFile() as counted:
        status = _in_child(action, steps, 0, counted.fileno())
        assert status == 0, f"the undisturbed run failed: {status}"
        return os.fstat(counted.fileno()).st_size


def _in_child(
    action: Callable[[], None], steps: Sequence[Patch], number: int, count_fd: int | None
) -> int:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking beside threads
        child = os.fork()
    if child == 0:
        _child(action, steps, number, count_fd)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _child(
    action: Callable[[], None], steps: Sequence[Patch], number: int, count_fd: int | None
) -> NoReturn:
    code = 1
    try:
        passing = _Steps(number, count_fd)
        for owner, name in steps:
            _patch(owner, name, passing)
        action()
        code = 0
    except BaseException:
        traceback.print_exc()
        raise
    finally:
        os._exit(code)


class _Steps:
    """Counts the steps of a child, on whichever thread, and kills it at the chosen one."""

    def __init__(self, number: int, count_fd: int | None) -> None:
        self._number = number
        self._count_fd = count_fd
        self._write = os.write  # before it is a step itself
        self._passed = 0
        self._lock = threading.Lock()

    def take(self) -> None:
        with self._lock:
            self._passed += 1
            if self._passed == self._number:
                os.kill(os.getpid(), signal.SIGKILL)
            if self._count_fd is not None:
                self._write(self._count_fd, b".")


def _patch(owner: Any, name: str, passing: _Steps) -> None:
    original = getattr(owner, name)

    def stepping(*args: Any, **kwargs: Any) -> Any:
        passing.take()
        return original(*args, **kwargs)

    setattr(owner, name, stepping)

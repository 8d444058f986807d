"""The first process of a container: passes signals on, and buries orphans.

The kernel gives orphans to process 1, which nobody else can wait for, and shields it from signals
that it has no handler for. So process 1 becomes two: this one, and the server as its child.
"""

from __future__ import annotations

import contextlib
import os
import signal
from typing import NoReturn

_FAULTS = frozenset(
    {
        *(signal.SIGKILL, signal.SIGSTOP, signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE),
        *(signal.SIGILL, signal.SIGABRT, signal.SIGTRAP, signal.SIGSYS),
    }
)
# What a terminal sends to the group in the background, which this process is in.
_OWN = frozenset({signal.SIGCHLD, signal.SIGTTIN, signal.SIGTTOU, signal.SIGTSTP, signal.SIGPIPE})
_SIGNALLED = 128


def become_init() -> None:
    """Returns in a new child process; this one stays, and ends as the child does.

    Call it before there are threads.
    """
    watched = set(signal.valid_signals()) - _FAULTS
    before = signal.pthread_sigmask(signal.SIG_BLOCK, watched)
    child = os.fork()
    if child:
        _keep(child, watched)
    _take_terminal()
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _keep(child: int, watched: set[signal.Signals]) -> NoReturn:
    status: int | None = None
    while status is None:
        number = signal.sigwait(watched)
        if number == signal.SIGCHLD:
            status = _bury(child)
        elif number not in _OWN:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, number)
    os._exit(_SIGNALLED - status if status < 0 else status)


def _bury(child: int) -> int | None:
    """Waits for all that have ended; the exit code of the child once that has."""
    found = None
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            if ended[0] == child:
                found = os.waitstatus_to_exitcode(ended[1])
    return found


def _take_terminal() -> None:
    """A group of its own, in the foreground: an interrupt from a terminal comes once."""
    os.setpgid(0, 0)
    with contextlib.suppress(OSError):
        if os.isatty(0):
            os.tcsetpgrp(0, os.getpid())

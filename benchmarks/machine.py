"""Processes under measurement: pinned to a core, waited for, weighed and ended."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

_CORES = sorted(os.sched_getaffinity(0))
PINNED = len(_CORES) > 1
"""Whether server and load have a core each; else they share what there is."""
# Fields of /proc/PID/stat, counted behind the name in parentheses.
_PARENT, _SESSION, _USER_TICKS, _SYSTEM_TICKS = 1, 3, 11, 12
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
_POLL_S = 0.005
_END_S = 8.0


def on_server_core(command: Sequence[str]) -> list[str]:
    """The command, pinned to the server's core."""
    return ["taskset", "-c", str(_CORES[0]), *command] if PINNED else list(command)


def on_load_core(command: Sequence[str]) -> list[str]:
    """The command, pinned to the other core."""
    return ["taskset", "-c", str(_CORES[1]), *command] if PINNED else list(command)


def leave_server_core() -> None:
    """Keeps this process, and what it starts from here on, off the server's core."""
    if PINNED:
        os.sched_setaffinity(0, set(_CORES[1:]))


def free_ports(count: int) -> list[int]:
    """Ports that nothing listens on now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports: list[int] = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


class StartError(Exception):
    """A server did not come up, or answers wrongly."""


@dataclass
class Process:
    """A server and all that it starts."""

    popen: subprocess.Popen[bytes]
    log: Path
    begun: float

    @classmethod
    def start(
        cls, command: Sequence[str], environment: Mapping[str, str], folder: Path, log: Path
    ) -> Self:
        """Starts a command on the server's core, in a session of its own."""
        begun = time.perf_counter()
        with log.open("wb") as output:
            popen = subprocess.Popen(
                on_server_core(command),
                env=dict(environment),
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return cls(popen, log, begun)

    def wait_ready(self, answers: Callable[[], bool], timeout_s: float) -> float:
        """Seconds from the start to the first answer.

        Raises:
            StartError: It ended, or did not answer in time.
        """
        while not answers():
            if self.popen.poll() is not None:
                raise StartError(f"ended with {self.popen.returncode}: {self.last_words()}")
            if time.perf_counter() - self.begun > timeout_s:
                raise StartError(f"not ready in {timeout_s:.0f} s: {self.last_words()}")
            time.sleep(_POLL_S)
        return time.perf_counter() - self.begun

    def last_words(self) -> str:
        """The last line of its log that says something."""
        lines = [line.strip() for line in self.log.read_text(errors="replace").splitlines()]
        return next((line[:200] for line in reversed(lines) if line), "(no output)")

    def pids(self) -> list[int]:
        """Every process of it that lives."""
        return [pid for pid, _ in self._living()]

    def processor_s(self) -> float:
        """Processor time of all that lives of it."""
        return sum(seconds for _, seconds in self._living())

    def _living(self) -> list[tuple[int, float]]:
        """Each process with its processor time."""
        known = dict(_processes())
        ticks = {
            pid: int(fields[_USER_TICKS]) + int(fields[_SYSTEM_TICKS])
            for pid, fields in known.items()
        }
        return [(pid, ticks[pid] * _TICK_S) for pid in family(self.popen.pid, known)]

    def memory_mib(self) -> float:
        """What it holds resident; of pages that its processes share, the most is counted once."""
        held = [_held_kib(pid) for pid in self.pids()]
        private = sum(mine for mine, _ in held)
        return (private + max((shared for _, shared in held), default=0)) / 1024

    def end(self) -> None:
        """Asks all of it to go, and insists."""
        mine = set(self.pids())
        for pid in mine:
            _signal(pid, signal.SIGTERM)
        deadline = time.monotonic() + _END_S
        while mine and time.monotonic() < deadline:
            self.popen.poll()
            time.sleep(_POLL_S)
            mine &= living()
        for pid in mine:
            _signal(pid, signal.SIGKILL)
        self.popen.wait()


def family(pid: int, known: Mapping[int, Sequence[str]]) -> list[int]:
    """A process, those of its session, and what they have started, in sessions of their own too.

    Args:
        pid: The leader of a session.
        known: Each process with its fields of `/proc/PID/stat` from the state on.
    """
    found = {each for each, fields in known.items() if fields[_SESSION] == str(pid)}
    while more := {each for each, fields in known.items() if int(fields[_PARENT]) in found} - found:
        found |= more
    return sorted(found)


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def living() -> set[int]:
    """Every process of the machine that lives."""
    return {pid for pid, _ in _processes()}


def _processes() -> Iterator[tuple[int, list[str]]]:
    """Each process with the fields behind its name; zombies left out."""
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if fields[0] != "Z":
                yield int(folder.name), fields


def _held_kib(pid: int) -> tuple[int, int]:
    """What a process has resident, its own and shared; nothing where it has gone."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    except OSError:
        return 0, 0
    sizes = {
        name: int(size.split()[0]) for name, _, size in (line.partition(":") for line in lines)
    }
    private = sizes.get("Private_Clean", 0) + sizes.get("Private_Dirty", 0)
    return private, sizes.get("Rss", 0) - private

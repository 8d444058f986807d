"""The limit on how often one line of code logs."""

from __future__ import annotations

import logging

from serve.server.telemetry import quiet
from serve.server.telemetry.quiet import Quiet


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def record(
    name: str = "serve.server.x", line: int = 1, level: int = logging.ERROR
) -> logging.LogRecord:
    return logging.LogRecord(name, level, "file.py", line, "%s failed", ("it",), None)


def test_of_many_alike_only_the_first_are_written() -> None:
    clock = Clock()
    limit = Quiet(most=3, period_s=10, clock=clock)
    assert [limit.filter(record()) for _ in range(5)] == [True] * 3 + [False] * 2
    assert limit.filter(record(line=2))
    clock.now = 11
    first = record()
    assert limit.filter(first)
    assert first.getMessage() == "it failed (2 more like this were not written)"
    second = record()
    assert limit.filter(second)
    assert second.getMessage() == "it failed"


def test_what_a_script_logs_passes() -> None:
    limit = Quiet(most=1)
    assert all(limit.filter(record(name="entry_module")) for _ in range(5))
    assert all(limit.filter(record(level=logging.INFO)) for _ in range(5))


def test_it_remembers_so_many_lines_at_most() -> None:
    limit = Quiet(most=1)
    assert all(limit.filter(record(line=line)) for line in range(2000))


def test_it_is_installed_once() -> None:
    root = logging.getLogger()
    handler = logging.NullHandler()
    root.addHandler(handler)
    try:
        quiet.install()
        quiet.install()
        assert sum(isinstance(known, Quiet) for known in handler.filters) == 1
    finally:
        root.removeHandler(handler)
        for other in root.handlers:
            for known in list(other.filters):
                if isinstance(known, Quiet):
                    other.removeFilter(known)

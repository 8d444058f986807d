"""One log of all workers of a deployment: `TIME r3/w0 TEXT`, by the time of each line."""

from __future__ import annotations

import contextlib
import heapq
import queue
import threading
import time
from collections import deque
from typing import TYPE_CHECKING

from scoring.errors import FieldpostError
from serve.server.lines import is_json, with_source

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from serve.targets.docker.crew import Crew, Member

_LOOK_S = 1.0
_STAMP = len("2026-01-01T00:00:00.000")
_LONGEST = 1 << 20


def read(crew: Crew, tail: int | None = None) -> Iterator[str]:
    """Lines of all workers that there are, oldest first."""
    streams = [_stamped(crew, each, tail=tail) for each in crew.workers()]
    lines = (line for _, line in heapq.merge(*streams))
    yield from lines if tail is None else deque(lines, maxlen=tail)


def follow(crew: Crew, tail: int | None = None) -> Iterator[str]:
    """The lines that there are, then those that come, until the iterator is closed.

    Workers of later revisions are followed from when they come; one that is started again goes on.
    """
    follower = _Follower(crew)
    try:
        yield from follower.lines(tail)
    finally:
        follower.close()


class _Follower:
    """Follows each worker's log in a thread of its own."""

    def __init__(self, crew: Crew) -> None:
        self._crew = crew
        self._queue: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._threads: dict[str, threading.Thread] = {}
        self._seen: dict[str, str] = {}
        self._closed = False

    def lines(self, tail: int | None) -> Iterator[str]:
        present = self._crew.workers()
        streams = [_stamped(self._crew, each, tail=tail) for each in present]
        merged: Iterable[tuple[str, str]] = heapq.merge(*streams)
        for stamp, line in merged if tail is None else deque(merged, maxlen=tail):
            self._seen[_source_of(line)] = stamp
            yield line
        while not self._closed:
            self._look()
            deadline = time.monotonic() + _LOOK_S
            while (left := deadline - time.monotonic()) > 0:
                with contextlib.suppress(queue.Empty):
                    text = self._queue.get(timeout=left)
                    if text is not None:
                        yield text

    def close(self) -> None:
        self._closed = True

    def _look(self) -> None:
        """Follows those that run and are not followed."""
        with contextlib.suppress(FieldpostError):  # the engine may be back at the next look
            for each in self._crew.workers():
                thread = self._threads.get(each.id)
                if each.is_up and (thread is None or not thread.is_alive()):
                    self._threads[each.id] = self._start(each)

    def _start(self, member: Member) -> threading.Thread:
        thread = threading.Thread(target=self._follow, args=(member,), daemon=True)
        thread.start()
        return thread

    def _follow(self, member: Member) -> None:
        last = self._seen.get(member.source, "")
        with contextlib.suppress(FieldpostError):
            for stamp, line in _stamped(self._crew, member, follow=True):
                if self._closed:
                    return
                if stamp > last:
                    self._seen[member.source] = stamp
                    self._queue.put(line)


def _stamped(
    crew: Crew, member: Member, *, tail: int | None = None, follow: bool = False
) -> Iterator[tuple[str, str]]:
    """A worker's lines with their exact times."""
    for text in _lines(crew.engine.logs(member.id, tail=tail, follow=follow)):
        stamp, _, rest = text.partition(" ")
        yield stamp, _shown(stamp, member.source, rest)


def _shown(stamp: str, source: str, text: str) -> str:
    """As the local target writes it; a line of the access log stays JSON."""
    if is_json(text):
        return with_source(source, text)
    return f"{stamp[:_STAMP]}Z {source} {text}"


def _source_of(line: str) -> str:
    if is_json(line):
        return line.rpartition('"source":"')[2].partition('"')[0]
    return line.split(" ", 2)[1]


def _lines(pieces: Iterable[bytes]) -> Iterator[str]:
    """Whole lines of a stream in pieces."""
    rest = b""
    for piece in pieces:
        *whole, rest = (rest + piece).split(b"\n")
        for line in whole:
            yield line.decode("utf-8", "replace").rstrip("\r")
        if len(rest) > _LONGEST:
            yield rest.decode("utf-8", "replace")
            rest = b""
    if rest:
        yield rest.decode("utf-8", "replace")

"""One log of all workers of a deployment: `TIME r3/w0 TEXT`, by the time of each line."""

from __future__ import annotations

import contextlib
import heapq
import queue
import threading
import time
from collections import defaultdict, deque
from typing import TYPE_CHECKING, NamedTuple

from scoring.errors import FieldpostError
from serve.server.lines import is_json, with_source

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from serve.engines.engine import ContainerOutput
    from serve.targets.docker.crew import Crew, Member

_LOOK_S = 1.0
_STAMP = len("2026-01-01T00:00:00.000")
_LONGEST = 1 << 20


def read(crew: Crew, tail: int | None = None) -> Iterator[str]:
    """Lines of all workers that there are, oldest first."""
    pieces = crew.engine.logs
    streams = [_stamped(each, pieces(each.id, tail=tail)) for each in crew.workers()]
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


class _Place(NamedTuple):
    """How far a worker's log has been read: engines' times may be as coarse as seconds.

    Attributes:
        stamp: Of the last line.
        many: How many lines with that time have been read.
    """

    stamp: str = ""
    many: int = 0

    def after(self, stamp: str) -> _Place:
        """When one more line has been read."""
        return _Place(stamp, self.many + 1 if stamp == self.stamp else 1)


class _Follower:
    """Follows each worker's log in a thread of its own."""

    def __init__(self, crew: Crew) -> None:
        self._crew = crew
        self._queue: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._threads: dict[str, threading.Thread] = {}
        self._places: dict[str, _Place] = defaultdict(_Place)
        self._streams: dict[str, ContainerOutput] = {}
        self._lock = threading.Lock()
        self._closed = False

    def lines(self, tail: int | None) -> Iterator[str]:
        yield from self._present(tail)
        while not self._closed:
            self._look()
            deadline = time.monotonic() + _LOOK_S
            while (left := deadline - time.monotonic()) > 0:
                with contextlib.suppress(queue.Empty):
                    yield self._queue.get(timeout=left)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            streams = list(self._streams.values())
        for stream in streams:
            stream.close()
        for thread in self._threads.values():
            thread.join(_LOOK_S)

    def _present(self, tail: int | None) -> Iterator[str]:
        """What there is now; all of it is read, to know where to go on."""
        pieces = self._crew.engine.logs
        lines = heapq.merge(
            *(self._pass_on(each, pieces(each.id)) for each in self._crew.workers())
        )
        shown = (line for _, line in lines)
        yield from shown if tail is None else deque(shown, maxlen=tail)

    def _pass_on(self, member: Member, pieces: Iterable[bytes]) -> Iterator[tuple[str, str]]:
        """The lines of a worker that have not been read yet, noted as read."""
        known, repeated = self._places[member.id], 0
        for stamp, line in _stamped(member, pieces):
            if stamp < known.stamp:
                continue
            if stamp == known.stamp and repeated < known.many:
                repeated += 1
                continue
            self._places[member.id] = self._places[member.id].after(stamp)
            yield stamp, line

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
        with contextlib.suppress(FieldpostError):
            stream = self._open(member)
            if stream is None:
                return
            try:
                for _, line in self._pass_on(member, stream):
                    self._queue.put(line)
            finally:
                stream.close()

    def _open(self, member: Member) -> ContainerOutput | None:
        """A stream that `close` ends; None where it was called already."""
        stream = self._crew.engine.output(member.id)
        with self._lock:
            if not self._closed:
                self._streams[member.id] = stream
                return stream
        stream.close()
        return None


def _stamped(member: Member, pieces: Iterable[bytes]) -> Iterator[tuple[str, str]]:
    """A worker's lines with their exact times."""
    for text in _lines(pieces):
        stamp, _, rest = text.partition(" ")
        yield stamp, _shown(stamp, member.source, rest)


def _shown(stamp: str, source: str, text: str) -> str:
    """As the local target writes it; a line of the access log stays JSON."""
    if is_json(text):
        return with_source(source, text)
    return f"{stamp.rstrip('Z')[:_STAMP]}Z {source} {text}"


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

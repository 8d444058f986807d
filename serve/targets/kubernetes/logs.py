"""One log of all pods of a deployment: `TIME rREVISION/POD TEXT`, by the time of each line."""

from __future__ import annotations

import contextlib
import heapq
import queue
import threading
import time
from collections import deque
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from scoring.errors import FieldpostError
from serve.server.lines import is_json, with_source
from serve.targets.kubernetes import rollout
from serve.targets.kubernetes.kinds import Object, name_of
from serve.targets.kubernetes.objects.pod import CONTAINER

if TYPE_CHECKING:
    from collections.abc import Iterator

    from serve.targets.kubernetes.waiting import Place

_LOOK_S = 1.0
_STAMP = len("2026-01-01T00:00:00.000")

Line = tuple[str, str]
"""Time, and the line as it is shown."""


def read(place: Place, tail: int | None = None) -> Iterator[str]:
    """Lines of all pods that there are, oldest first."""
    streams = [_past(place, pod, tail) for pod in _pods(place)]
    lines = (line for _, line in heapq.merge(*streams))
    yield from lines if tail is None else deque(lines, maxlen=tail)


def follow(place: Place, tail: int | None = None) -> Iterator[str]:
    """The lines that there are, then those that come, until the iterator is closed.

    Pods that come later are followed from their beginning.
    """
    follower = _Follower(place)
    try:
        yield from follower.lines(tail)
    finally:
        follower.close()


class _Follower:
    """Follows each pod's log in a thread of its own."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._queue: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._threads: dict[str, threading.Thread] = {}
        self._seen: dict[str, tuple[str, int]] = {}
        self._closed = threading.Event()

    def lines(self, tail: int | None) -> Iterator[str]:
        """See `follow`."""
        present = heapq.merge(*(self._noted(pod, _past(self._place, pod)) for pod in self._pods()))
        shown = (line for _, line in present)
        yield from shown if tail is None else deque(shown, maxlen=tail)
        while True:
            self._look()
            deadline = time.monotonic() + _LOOK_S
            while (left := deadline - time.monotonic()) > 0:
                with contextlib.suppress(queue.Empty):
                    yield self._queue.get(timeout=left)

    def close(self) -> None:
        """The threads end with the next line of their pods: nobody waits for them."""
        self._closed.set()

    def _pods(self) -> list[Object]:
        return _pods(self._place)

    def _look(self) -> None:
        """Follows those that run and are not followed."""
        with contextlib.suppress(FieldpostError):  # the cluster may be back at the next look
            for pod in self._pods():
                thread = self._threads.get(_uid(pod))
                if thread is None or not thread.is_alive():
                    thread = threading.Thread(target=self._follow, args=(pod,), daemon=True)
                    self._threads[_uid(pod)] = thread
                    thread.start()

    def _follow(self, pod: Object) -> None:
        since = self._seen.get(_uid(pod), ("", 0))[0] or None
        # A closed client raises RuntimeError: the command has ended.
        with contextlib.suppress(FieldpostError, RuntimeError):
            stream = self._place.cluster.logs(
                name_of(pod), container=CONTAINER, follow=True, since=since, timestamps=True
            )
            for _, line in self._noted(pod, (_stamped(pod, text) for text in stream)):
                if self._closed.is_set():
                    return
                self._queue.put(line)

    def _noted(self, pod: Object, lines: Iterator[Line]) -> Iterator[Line]:
        """Those that have not been read: a stream begins again at the time of its last line."""
        (last, many), repeated = self._seen.get(_uid(pod), ("", 0)), 0
        for stamp, line in lines:
            if stamp < last:
                continue
            if stamp == last and repeated < many:
                repeated += 1
                continue
            known, count = self._seen.get(_uid(pod), ("", 0))
            self._seen[_uid(pod)] = (stamp, count + 1 if stamp == known else 1)
            yield stamp, line


def _pods(place: Place) -> list[Object]:
    return place.cluster.list("Pod", labels=place.selector).items


def _past(place: Place, pod: Object, tail: int | None = None) -> Iterator[Line]:
    """What a pod has written; nothing for one that has not begun, or is gone."""
    with contextlib.suppress(FieldpostError):
        for text in place.cluster.logs(
            name_of(pod), container=CONTAINER, tail=tail, timestamps=True
        ):
            yield _stamped(pod, text)


def _stamped(pod: Object, text: str) -> Line:
    stamp, _, rest = text.partition(" ")
    stamp = _in_utc(stamp)
    source = f"r{rollout.revision_of(pod)}/{name_of(pod).rpartition('-')[2]}"
    if is_json(rest):
        return stamp, with_source(source, rest)
    return stamp, f"{stamp.rstrip('Z')[:_STAMP]}Z {source} {rest}"


def _in_utc(stamp: str) -> str:
    """Nodes write their own time, with what it is off from UTC; lines of several are sorted."""
    if stamp.endswith("Z"):
        return stamp
    try:
        found = datetime.fromisoformat(stamp)
    except ValueError:
        return stamp
    return f"{found.astimezone(UTC).replace(tzinfo=None).isoformat(timespec='microseconds')}Z"


def _uid(pod: Object) -> str:
    return str((pod.get("metadata") or {}).get("uid", ""))

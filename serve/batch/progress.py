"""How a run goes, for people: a bar on a terminal, sentences elsewhere."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Self

from serve.batch.local import Follower

if TYPE_CHECKING:
    from scoring.batch.records import Done, Plan

_EVERY_S = 5.0


class Sentences(Follower):
    """A sentence every few seconds.

    Args:
        tell: Takes one.
        every_s: At least that long between two that say how far it is.
        clock: Seconds, growing.
    """

    def __init__(
        self,
        tell: Callable[[str], None],
        every_s: float = _EVERY_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tell, self._every_s, self._clock = tell, every_s, clock
        self._lock = threading.Lock()
        self._shards = self._done = self._rows = 0
        self._next = clock() + every_s

    def planned(self, plan: Plan, already: int) -> None:
        """See `Follower`."""
        self._shards, self._done = len(plan.shards), already
        before = f", {already} of them scored before" if already else ""
        self._tell(f"{len(plan.sources)} files, {self._shards} shards{before}")

    def counted(self, done: int, whole: int) -> None:
        """See `Follower`."""
        self._tell(f"{done} of {whole} tasks are done")

    def scored(self, rows: int) -> None:
        """See `Watcher`."""
        with self._lock:
            self._rows += rows
            self._say()

    def finished(self, done: Done | None = None) -> None:
        """See `Watcher`."""
        del done
        with self._lock:
            self._done += 1
            self._say()

    def retrying(self, shard: int, reason: str) -> None:
        """See `Watcher`."""
        self._tell(f"Shard {shard} is tried again: {reason}")

    def _say(self) -> None:
        if self._clock() >= self._next:
            self._next = self._clock() + self._every_s
            self._tell(f"{self._done} of {self._shards} shards, {self._rows} rows")


class Bar(Follower):
    """A bar that grows by shards, with the rows beside it; used as a context manager."""

    def __init__(self) -> None:
        from rich.console import Console  # noqa: PLC0415 - terminals only
        from rich.progress import (  # noqa: PLC0415
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("shards, {task.fields[rows]} rows"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
        )
        self._task: Any = self._progress.add_task("Scoring", total=None, rows=0)
        self._lock = threading.Lock()
        self._rows = 0

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def planned(self, plan: Plan, already: int) -> None:
        """See `Follower`."""
        self._progress.update(self._task, total=len(plan.shards), completed=already)

    def counted(self, done: int, whole: int) -> None:
        """See `Follower`."""
        self._progress.update(self._task, total=whole, completed=done)

    def scored(self, rows: int) -> None:
        """See `Watcher`."""
        with self._lock:
            self._rows += rows
            self._progress.update(self._task, rows=self._rows)

    def finished(self, done: Done) -> None:
        """See `Watcher`."""
        del done
        self._progress.advance(self._task)

    def retrying(self, shard: int, reason: str) -> None:
        """See `Watcher`."""
        self._progress.console.print(f"Shard {shard} is tried again: {reason}")

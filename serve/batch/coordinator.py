"""Scores the shards of a plan in processes of this machine, each shard until it is done."""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import IO, Any, Protocol, cast

import msgspec
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception,
    stop_after_attempt,
    wait_random_exponential,
)

from scoring.batch.child import ModelDiedError, to_error
from scoring.batch.records import Done
from scoring.batch.runner import Order, Setup
from scoring.errors import FieldpostError, ScoringFailedError

logger = logging.getLogger(__name__)

_GRACE_S = 5.0
_FIRST_WAIT_S = 0.2
_LONGEST_WAIT_S = 10.0


class Watcher(Protocol):
    """Is told how a run goes; on any thread."""

    def scored(self, rows: int) -> None:
        """So many rows more were scored; of a shard that is tried again, once more."""
        ...

    def finished(self, done: Done) -> None:
        """A shard's result is in its place."""
        ...

    def retrying(self, shard: int, reason: str) -> None:
        """A shard is tried again."""
        ...


@dataclass(frozen=True, slots=True)
class Crew:
    """How many processes score, and how often a shard is tried.

    Attributes:
        setup: What each of them is started with.
        workers: How many at once.
        attempts: For one shard.
        environment: Of the processes that read and write.
    """

    setup: Setup
    workers: int = 1
    attempts: int = 4
    environment: dict[str, str] | None = None


def score_shards(shards: Sequence[int], crew: Crew, watcher: Watcher) -> None:
    """Scores all of the shards; what is begun when one fails for good comes to its end.

    Args:
        shards: Their numbers.
        crew: Who scores.
        watcher: Told of progress.

    Raises:
        InputError: A row is not taken, and rows are not to be left out.
        ScoringError: The model does not load, or failed again and again.
    """
    waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
    for shard in shards:
        waiting.put(shard)
    failures: list[tuple[int, BaseException]] = []
    stop = threading.Event()
    members = [_Member(crew, watcher, waiting, failures, stop) for _ in range(crew.workers)]
    members = members[: len(shards)]
    threads = [threading.Thread(target=member.work, name="batch") for member in members]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        stop.set()
        for member in members:
            member.kill()
        for thread in threads:
            if thread.ident is not None:
                thread.join()
    if failures:
        raise min(failures, key=lambda failure: failure[0])[1]


class _Member:
    """One thread, and the process that it keeps at work."""

    def __init__(
        self,
        crew: Crew,
        watcher: Watcher,
        waiting: queue.SimpleQueue[int],
        failures: list[tuple[int, BaseException]],
        stop: threading.Event,
    ) -> None:
        self._crew, self._watcher = crew, watcher
        self._waiting, self._failures, self._stop = waiting, failures, stop
        self._runner: _Runner | None = None

    def work(self) -> None:
        """Takes shards for as long as there are any and none has failed for good."""
        try:
            while not self._stop.is_set():
                try:
                    shard = self._waiting.get_nowait()
                except queue.Empty:
                    return
                self._score(shard)
        finally:
            self.end()

    def kill(self) -> None:
        """Ends the process at once, for another thread than its own."""
        if self._runner is not None:
            self._runner.kill()

    def end(self) -> None:
        """Ends the process."""
        runner, self._runner = self._runner, None
        if runner is not None:
            runner.close()

    def _score(self, shard: int) -> None:
        try:
            for attempt in Retrying(
                retry=retry_if_exception(_may_pass),
                stop=stop_after_attempt(self._crew.attempts),
                wait=wait_random_exponential(_FIRST_WAIT_S, _LONGEST_WAIT_S),
                sleep=self._sleep,
                before_sleep=lambda state: self._tell(shard, state),
                reraise=True,
            ):
                with attempt:
                    self._try(shard)
        except Exception as error:  # noqa: BLE001 - raised where the threads are joined
            if not self._stop.is_set():
                self._failures.append((shard, error))
            self._stop.set()

    def _try(self, shard: int) -> None:
        if self._stop.is_set() and self._failures:
            raise ScoringFailedError("Another shard has failed.")
        if self._runner is None:
            self._runner = _Runner(self._crew)
        try:
            for answer in self._runner.score(shard):
                if "rows" in answer:
                    self._watcher.scored(int(answer["rows"]))
                elif "done" in answer:
                    self._watcher.finished(msgspec.convert(answer["done"], Done))
        except FieldpostError as error:
            if error.retryable:
                self.end()  # a fresh process, with a fresh model
            raise

    def _sleep(self, seconds: float) -> None:
        self._stop.wait(seconds)

    def _tell(self, shard: int, state: RetryCallState) -> None:
        reason = state.outcome.exception() if state.outcome else None
        self._watcher.retrying(shard, str(reason))


def _may_pass(error: BaseException) -> bool:
    return isinstance(error, FieldpostError) and error.retryable


class _Runner:
    """A process of `scoring.batch.runner`.

    Args:
        crew: With what it is started with.

    Raises:
        ScoringError: The model does not load.
        ModelDiedError: The process ended before that.
    """

    def __init__(self, crew: Crew) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "scoring.batch.runner"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=crew.environment or dict(os.environ),
            start_new_session=True,  # a Ctrl-C is for the command
        )
        self._stdin = cast("IO[bytes]", self._process.stdin)
        self._stdout = cast("IO[bytes]", self._process.stdout)
        try:
            self._send(msgspec.json.encode(crew.setup))
            self._hear()
        except BaseException:
            self.close()
            raise

    def score(self, shard: int) -> Iterator[dict[str, Any]]:
        """What it tells of one shard, until that is done.

        Raises:
            FieldpostError: What it says went wrong.
            ModelDiedError: It ended.
        """
        self._send(msgspec.json.encode(Order(shard)))
        while True:
            answer = self._hear()
            yield answer
            if "done" in answer:
                return

    def kill(self) -> None:
        """Ends it at once: what it has not finished is done again."""
        self._process.kill()

    def close(self) -> None:
        """Ends it, and so its model; for the thread that hears it."""
        with contextlib.suppress(OSError):
            self._stdin.close()
        try:
            self._process.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._stdout.close()

    def _send(self, line: bytes) -> None:
        try:
            self._stdin.write(line + b"\n")
            self._stdin.flush()
        except OSError:
            raise self._gone() from None

    def _hear(self) -> dict[str, Any]:
        line = self._stdout.readline()
        if not line.endswith(b"\n"):
            raise self._gone()
        answer: dict[str, Any] = msgspec.json.decode(line)
        if told := answer.get("error") or answer.get("failed"):
            raise to_error(told)
        return answer

    def _gone(self) -> ModelDiedError:
        status = self._process.poll()
        how = f" by signal {-status}" if status is not None and status < 0 else ""
        return ModelDiedError(
            f"The process that scored a shard was ended{how}.",
            hint="Give it more memory, or fewer --workers, if the kernel has ended it (signal 9).",
        )

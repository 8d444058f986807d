"""One blob from many sources: gone on with after every break, compared while it streams.

A source that fails in a way that may pass is asked again, after the others, with growing pauses;
one that sends another file than it was asked for is not asked for that blob again.
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from edge.agent.blobs import Incoming
from edge.agent.throttle import Slowness, Stop, Throttle
from edge.agent.web import Answer, PassingError, Web
from edge.protocol.messages import Source
from scoring.errors import (
    DeadlineExceededError,
    DigestMismatchError,
    FieldpostError,
    NotFoundError,
    RegistryError,
    UnreachableError,
    WorkspaceError,
)

_PIECE_BYTES: Final = 64 * 1024
_RANGE: Final = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)", re.ASCII | re.IGNORECASE)
_OK: Final = 200
_PARTIAL: Final = 206
_NOT_FOUND: Final = 404
_NO_SUCH_RANGE: Final = 416


class Wishes(NamedTuple):
    """How something is to be fetched.

    Attributes:
        sources: The best first.
        web: Asks them.
        throttle: How fast.
        stop: Breaks off.
        deadline: On the steady clock; then it is given up for now.
        told: Is told how many bytes have come, each time.
        steady: Seconds of a clock that is never set.
    """

    sources: Sequence[Source]
    web: Web
    throttle: Throttle
    stop: Stop
    deadline: float = float("inf")
    told: Callable[[int], None] = lambda _: None
    steady: Callable[[], float] = time.monotonic


def persist(
    wishes: Wishes,
    attempt: Callable[[Source], None],
    what: str,
    *,
    progress: Callable[[], int] = lambda: 0,
) -> None:
    """Asks one source after another, round by round, until one has done it.

    Args:
        wishes: How.
        attempt: Asks one source; raises `PassingError` for what may pass, and any error of the
            tree for what does not.
        what: What is asked for, for messages.
        progress: How far it is: whatever gets further is asked again without growing pauses.

    Raises:
        FieldpostError: No source can do it: the first one's error.
        DeadlineExceededError: It took too long; what has come is kept.
        StoppedError: It is not wanted any more.
    """
    useless: dict[int, FieldpostError] = {}
    wait_s = wishes.web.limits.first_wait_s
    while len(useless) < len(wishes.sources):
        pause_s, last, begun_at = 0.0, None, progress()
        for number, source in enumerate(wishes.sources):
            if number in useless:
                continue
            _require_time(wishes, what, last)
            try:
                attempt(source)
            except PassingError as passing:
                last, pause_s = passing.error, max(pause_s, passing.after_s)
            except (WorkspaceError, DeadlineExceededError):
                raise
            except FieldpostError as error:
                useless[number] = error
            else:
                return
        if progress() > begun_at:
            wait_s = wishes.web.limits.first_wait_s
        if last is not None:
            _pause(wishes, max(pause_s, wait_s * random.uniform(0.5, 1)), what, last)  # noqa: S311
            wait_s = min(2 * wait_s, wishes.web.limits.longest_wait_s)
    raise next(iter(useless.values()), _no_source(what))


def transfer(
    incoming: Incoming,
    wishes: Wishes,
    path: Callable[[Source], str],
) -> None:
    """Fetches a blob into its place.

    Args:
        incoming: What of it is here.
        wishes: How.
        path: Where a source has it, below its URL.

    Raises:
        DigestMismatchError: Every source has another file.
        NotFoundError: No source has it.
        DeadlineExceededError: It took too long; what has come is kept.
        StorageFullError, WorkspaceError: It cannot be kept.
        RegistryError, RegistryDeniedError: No source gives it.
        StoppedError: It is not wanted any more; what has come is kept.
    """
    persist(
        wishes,
        lambda source: _Attempt(incoming, wishes, source).run(path(source)),
        f"the blob {incoming.digest}",
        progress=lambda: incoming.received,
    )


class _Attempt:
    """One request for what is missing of a blob."""

    def __init__(self, incoming: Incoming, wishes: Wishes, source: Source) -> None:
        self._incoming = incoming
        self._wishes = wishes
        self._source = source
        self._whole = incoming.received == 0

    def run(self, path: str) -> None:
        """Raises as `persist` has it."""
        incoming = self._incoming
        if incoming.received < incoming.size or not incoming.size:
            headers = {"Range": f"bytes={incoming.received}-"} if incoming.received else {}
            with (
                self._wishes.web.ask(
                    self._source, path, stop=self._wishes.stop, headers=headers
                ) as answer,
                self._wishes.stop.waking(answer.wake),
            ):
                self._receive(answer, self._skip(answer))
        self._finish()

    def _skip(self, answer: Answer) -> int:
        """How many bytes of the answer are here already.

        Raises:
            FieldpostError: It is no answer to what was asked.
        """
        if answer.status == _NOT_FOUND:
            raise NotFoundError(f"{self._source.url} does not have {self._incoming.digest}.")
        if answer.status == _NO_SUCH_RANGE and not self._whole:
            self._incoming.restart()
            raise PassingError(self._wrong("no end of it"))
        if answer.status not in {_OK, _PARTIAL}:
            raise self._wrong(f"status {answer.status}")
        if answer.header("Content-Encoding").lower() not in {"", "identity"}:
            raise self._wrong("another encoding")
        start = self._start(answer)
        if answer.length is not None and start + answer.length != self._incoming.size:
            raise self._wrong(f"{start + answer.length} bytes")
        return self._incoming.received - start

    def _start(self, answer: Answer) -> int:
        if answer.status == _OK:
            return 0
        match = _RANGE.fullmatch(answer.header("Content-Range"))
        if match is None or int(match[1]) != self._incoming.received:
            raise self._wrong("another part of it")
        if match[3] not in {"*", str(self._incoming.size)}:
            raise self._wrong(f"a part of {match[3]} bytes")
        return int(match[1])

    def _receive(self, answer: Answer, skip: int) -> None:
        wishes, incoming = self._wishes, self._incoming
        limits = wishes.web.limits
        slowness = Slowness(limits.least_rate, limits.slow_s, steady=wishes.steady)
        while incoming.received < incoming.size:
            piece = answer.read(wishes.throttle.piece(_PIECE_BYTES))
            _require_time(wishes, f"the blob {incoming.digest}", None)
            if not piece:
                raise PassingError(self._cut())
            wishes.told(len(piece))
            incoming.write(piece[skip:] if skip < len(piece) else b"")
            skip = max(0, skip - len(piece))
            delay = wishes.throttle.delay(len(piece))
            if delay:
                wishes.stop.wait(delay)
            if slowness.too_slow(len(piece), delay):
                raise PassingError(self._slow(limits.least_rate))

    def _finish(self) -> None:
        try:
            self._incoming.finish()
        except DigestMismatchError as error:
            if self._whole:
                raise
            # Which of those that gave a part was wrong is not known: from the beginning.
            raise PassingError(error) from error

    # -- what to say

    def _wrong(self, found: str) -> RegistryError | DigestMismatchError:
        return DigestMismatchError(
            f"{self._source.url} sends {found} for {self._incoming.digest}, which has "
            f"{self._incoming.size} bytes.",
            hint="Its storage, or a proxy before it, is damaged; nothing was kept.",
        )

    def _cut(self) -> UnreachableError:
        return UnreachableError(
            f"{self._source.url} breaks off after {self._incoming.received} of "
            f"{self._incoming.size} bytes of {self._incoming.digest}.",
            hint="It is gone on with by itself.",
        )

    def _slow(self, least: float) -> UnreachableError:
        return UnreachableError(
            f"{self._source.url} sends fewer than {least:g} bytes a second.",
            hint="Another source is asked, and this one again later.",
        )


def _require_time(wishes: Wishes, what: str, last: FieldpostError | None) -> None:
    wishes.stop.check()
    if wishes.steady() >= wishes.deadline:
        raise _too_late(what, last)


def _pause(wishes: Wishes, seconds: float, what: str, last: FieldpostError) -> None:
    left = wishes.deadline - wishes.steady()
    wishes.stop.wait(min(seconds, left))
    if seconds >= left:
        raise _too_late(what, last)


def _too_late(what: str, last: FieldpostError | None) -> DeadlineExceededError:
    reason = f" {last.message}" if last else ""
    return DeadlineExceededError(
        f"Fetching {what} took longer than it may.{reason}",
        hint="It is gone on with by itself from what has come.",
    )


def _no_source(what: str) -> NotFoundError:
    return NotFoundError(
        f"Nobody was named who has {what}.",
        hint="The desired state has to name a source.",
    )

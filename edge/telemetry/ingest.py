"""Telemetry on its way into the inbox: checked, limited for each device, acknowledged when durable.

The sender of an acknowledgement is the caller: nothing here knows a broker.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

import msgspec

from edge.protocol.messages import Ack
from edge.protocol.topics import Topic
from edge.telemetry.inbox import Inbox, Taken
from edge.telemetry.received import Delivery, read
from scoring.errors import FieldpostError, RateLimitedError

logger = logging.getLogger(__name__)

MOST_WAITING: Final = 2000
"""Deliveries between two commits: with more of them the caller has to commit first."""


class Quota(msgspec.Struct, frozen=True, kw_only=True):
    """What one device may tell.

    Attributes:
        per_s: Records in a second, for long.
        burst: Records at once, as after days without a connection.
    """

    per_s: float = 500.0
    burst: float = 100_000.0


class Counts(msgspec.Struct, kw_only=True):
    """What came, since the start.

    Attributes:
        messages: Taken.
        records: Stored.
        duplicates: Records that had come before.
        refused: Messages that were no telemetry, or of somebody else.
        limited: Messages that came over a device's quota.
    """

    messages: int = 0
    records: int = 0
    duplicates: int = 0
    refused: int = 0
    limited: int = 0


class _Bucket(NamedTuple):
    left: float
    at: float


class Ingest:
    """Takes telemetry; one thread.

    Args:
        inbox: Where it is kept.
        quota: Of each device.
        listeners: Told what is new, once it is on the disk.
        clock: Seconds since the epoch.
        steady: Seconds of a clock that is never set.

    Attributes:
        counts: What came.
    """

    def __init__(
        self,
        inbox: Inbox,
        *,
        quota: Quota | None = None,
        listeners: Iterable[Callable[[Taken], None]] = (),
        clock: Callable[[], float] = time.time,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self.counts = Counts()
        self._inbox = inbox
        self._quota = quota or Quota()
        self._listeners = tuple(listeners)
        self._clock, self._steady = clock, steady
        self._waiting: list[Delivery] = []
        self._buckets: dict[str, _Bucket] = {}

    @property
    def waiting(self) -> int:
        """Deliveries that wait for the next commit."""
        return len(self._waiting)

    def take(self, topic: Topic, payload: bytes) -> Ack | None:
        """Takes one message; what it says is on the disk when this returns.

        Returns:
            What to answer; None for a stream that is refused.

        Raises:
            MalformedPayloadError: It is no telemetry, or of another device.
            PayloadTooLargeError: It is too large.
            RateLimitedError: The device tells more than it may.
            WorkspaceError: It cannot be kept.
            StorageFullError: No space is left.
        """
        self.add(topic, payload)
        return next(iter(self.commit()), None)

    def add(self, topic: Topic, payload: bytes) -> None:
        """Takes one message into the next commit; raises like `take`."""
        if len(self._waiting) >= MOST_WAITING:
            raise RateLimitedError("Too much telemetry waits to be written.")
        try:
            delivery = read(topic, payload)
        except FieldpostError:
            self.counts.refused += 1
            raise
        self._spend(delivery)
        self._waiting.append(delivery)

    def commit(self) -> list[Ack]:
        """Writes what was added, with one sync; the acknowledgements are to be sent now.

        Raises:
            WorkspaceError: It cannot be kept; none of it is, and the devices send it again.
            StorageFullError: No space is left; likewise.
        """
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return []
        taken = self._inbox.take(waiting, self._clock())
        for one in taken:
            self._count(one)
            self._tell(one)
        return [one.ack for one in taken]

    def _count(self, taken: Taken) -> None:
        self.counts.messages += 1
        self.counts.records += len(taken.records)
        self.counts.duplicates += len(taken.delivery.batch.records) - len(taken.records)

    def _tell(self, taken: Taken) -> None:
        for listener in self._listeners:
            try:
                listener(taken)
            except Exception:  # it is durable already: nobody who listens may undo that
                logger.exception("telemetry_listener_failed device=%s", taken.delivery.device)

    def _spend(self, delivery: Delivery) -> None:
        now = self._steady()
        last = self._buckets.get(delivery.device, _Bucket(self._quota.burst, now))
        left = min(self._quota.burst, last.left + (now - last.at) * self._quota.per_s)
        # An empty message costs as well.
        left -= max(1, len(delivery.batch.records))
        if left < 0:
            self.counts.limited += 1
            raise RateLimitedError(
                f"{delivery.device} tells more than {self._quota.per_s:g} records a second."
            )
        self._buckets[delivery.device] = _Bucket(left, now)

"""Spans on their way to a collector: in batches, from a thread, and never more than fit.

While the collector is down spans are dropped and counted; nothing waits for it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Protocol

from serve.server.telemetry import otlp
from serve.server.telemetry.posting import Poster, SendError
from serve.server.telemetry.protowire import WireError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from serve.server.telemetry.otlp import Packed
    from serve.server.telemetry.otlpsettings import Target

logger = logging.getLogger(__name__)

_BATCH = 512
_BATCH_BYTES = 2 << 20
_MOST_SPANS = 4096
_MOST_BYTES = 8 << 20
_EVERY_S = 1.0
_CLOSE_S = 2.0
_COMPLAIN_S = 60.0
_LONGEST_REASON = 200


class Sender(Protocol):
    """What sends spans."""

    def send(self, spans: Sequence[Packed]) -> tuple[int, str]:
        """Sends them; gives how many were not taken, and why.

        Raises:
            SendError: They did not arrive.
        """
        ...

    def close(self) -> None:
        """Gives up what it is trying to send; from another thread."""
        ...


class Exporter:
    """Sends spans to a collector, by OTLP over HTTP.

    Args:
        target: Where it is.
        resource: Who makes the spans; see `otlp.resource`.

    Raises:
        UsageError: A file of its certificates cannot be used.
    """

    def __init__(self, target: Target, resource: bytes) -> None:
        self._poster = Poster(target)
        self._resource = resource

    def send(self, spans: Sequence[Packed]) -> tuple[int, str]:
        """See `Sender`."""
        answer = self._poster.post(otlp.export_request(self._resource, spans))
        try:
            rejected, why = otlp.rejected(answer)
        except WireError:  # it said that all is well
            return 0, ""
        return min(max(rejected, 0), len(spans)), why

    def close(self) -> None:
        """See `Sender`."""
        self._poster.close()


class Outbox:
    """Takes spans on any thread and sends them from its own.

    Args:
        sender: Sends a batch.
        where: The endpoint, for the log.
        every_s: How long spans wait for others at most.

    Attributes:
        exported: Spans that the collector has taken.
    """

    def __init__(self, sender: Sender, where: str, every_s: float = _EVERY_S) -> None:
        self.exported = 0
        self._failed = self._refused = 0
        self._sender = sender
        self._where = where
        self._every_s = every_s
        self._spans: deque[Packed] = deque()
        self._bytes = 0
        self._wanted = threading.Event()
        self._closing = False
        self._complained = -_COMPLAIN_S
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._work, name="spans", daemon=True)
        self._thread.start()

    @property
    def dropped(self) -> int:
        """Spans that are lost: too many waited, or the collector did not take them."""
        return self._failed + self._refused

    def put(self, span: Packed) -> None:
        """Takes a span, or drops it where too many wait."""
        size = len(span[1])
        with self._lock:
            full = len(self._spans) >= _MOST_SPANS or self._bytes + size > _MOST_BYTES
            if self._closing or full:
                self._refused += 1
                return
            self._spans.append(span)
            self._bytes += size
        if len(self._spans) >= _BATCH or self._bytes >= _BATCH_BYTES:
            self._wanted.set()

    def refuse(self) -> None:
        """Counts a span that could not be written."""
        with self._lock:
            self._refused += 1

    def close(self, limit_s: float = _CLOSE_S) -> None:
        """Sends what is left, for so long at most; the rest is dropped."""
        with self._lock:
            self._closing = True
        self._wanted.set()
        self._thread.join(limit_s)
        self._sender.close()
        self._thread.join(_EVERY_S)
        with self._lock:
            self._refused += len(self._spans)
            self._spans.clear()
            self._bytes = 0

    def _work(self) -> None:
        while not self._closing:
            self._wanted.wait(self._every_s)
            self._wanted.clear()
            while batch := self._take():
                self._send(batch)
                if len(self._spans) < _BATCH and not self._closing:
                    break

    def _take(self) -> list[Packed]:
        """The next spans, as many as go in one request."""
        batch: list[Packed] = []
        size = 0
        with self._lock:
            while self._spans and len(batch) < _BATCH:
                size += len(self._spans[0][1])
                if batch and size > _BATCH_BYTES:
                    break
                batch.append(self._spans.popleft())
                self._bytes -= len(batch[-1][1])
        return batch

    def _send(self, batch: list[Packed]) -> None:
        try:
            rejected, why = self._sender.send(batch)
        except SendError as error:
            rejected, why = len(batch), str(error)
        except Exception as error:  # noqa: BLE001 - nothing of this may end the thread
            rejected, why = len(batch), type(error).__name__
        self.exported += len(batch) - rejected
        self._failed += rejected
        if rejected or why:
            self._complain(rejected, why)

    def _complain(self, rejected: int, why: str) -> None:
        now = time.monotonic()
        if now - self._complained < _COMPLAIN_S:
            return
        self._complained = now
        shown = _shown(why) or "no reason given"
        if rejected:
            logger.error("Spans cannot be sent to %s (%s); they are dropped", self._where, shown)
        else:
            logger.warning("%s took spans, and says: %s", self._where, shown)


def _shown(why: str) -> str:
    """What a collector says, as one line that a terminal can take."""
    words = " ".join(why.split())[:_LONGEST_REASON]
    return "".join(letter if letter.isprintable() else "?" for letter in words)

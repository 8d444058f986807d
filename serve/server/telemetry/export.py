"""Spans on their way to a collector: in batches, from a thread, and never more than fit.

While the collector is down spans are dropped and counted; nothing waits for it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opentelemetry.sdk.trace import ReadableSpan

logger = logging.getLogger(__name__)

_BATCH = 512
_MOST_SPANS = 4096
_EVERY_S = 1.0
_CLOSE_S = 2.0
_COMPLAIN_S = 60.0


class Sender(Protocol):
    """What sends spans (an OTLP exporter, whose result is a member of an enumeration)."""

    def export(self, spans: Sequence[ReadableSpan]) -> object:
        """Sends them; says whether that went well by the `name` of its result."""
        ...

    def shutdown(self) -> None:
        """Gives up what it is trying to send."""
        ...


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
        self._spans: deque[ReadableSpan] = deque()
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

    def put(self, span: ReadableSpan) -> None:
        """Takes a span, or drops it where too many wait."""
        with self._lock:
            if self._closing or len(self._spans) >= _MOST_SPANS:
                self._refused += 1
                return
            self._spans.append(span)
        if len(self._spans) >= _BATCH:
            self._wanted.set()

    def close(self, limit_s: float = _CLOSE_S) -> None:
        """Sends what is left, for so long at most; the rest is dropped."""
        with self._lock:
            self._closing = True
        self._wanted.set()
        self._thread.join(limit_s)
        self._sender.shutdown()
        self._thread.join(_EVERY_S)
        with self._lock:
            self._refused += len(self._spans)
            self._spans.clear()

    def _work(self) -> None:
        while not self._closing:
            self._wanted.wait(self._every_s)
            self._wanted.clear()
            while self._send():
                pass

    def _send(self) -> bool:
        """Sends one batch; whether there may be another."""
        with self._lock:
            batch = [self._spans.popleft() for _ in range(min(_BATCH, len(self._spans)))]
        if not batch:
            return False
        try:
            reason = getattr(self._sender.export(batch), "name", "")
        except Exception as error:  # noqa: BLE001 - nothing of this may end the thread
            reason = str(error)
        if reason == "SUCCESS":
            self.exported += len(batch)
        else:
            self._failed += len(batch)
            self._complain()
        return len(batch) == _BATCH

    def _complain(self) -> None:
        now = time.monotonic()
        if now - self._complained >= _COMPLAIN_S:
            self._complained = now
            logger.error("Spans cannot be sent to %s; they are dropped", self._where)

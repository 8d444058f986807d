"""A limit on how often the server says the same thing in its log.

A failure that every request meets would write thousands of tracebacks a second, and cost more than
the requests do.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

_OURS = ("serve", "scoring", "opentelemetry")
_MOST_SITES = 512


class Quiet(logging.Filter):
    """A filter of handlers: of records from one line of our code, so many in a while.

    The first record after a pause says how many were left out. Records of other code, such as a
    user's script, pass.

    Args:
        most: Records of one line in a period.
        period_s: How long that is.
        clock: Monotonic seconds.
    """

    def __init__(
        self, most: int = 10, period_s: float = 10.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__()
        self._most = most
        self._period_s = period_s
        self._clock = clock
        self._sites: dict[tuple[str, int], _Site] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a record is written."""
        if record.name.partition(".")[0] not in _OURS or record.levelno < logging.WARNING:
            return True
        now = self._clock()
        key = record.pathname, record.lineno
        site = self._sites.get(key)
        if site is None:
            if len(self._sites) >= _MOST_SITES:
                self._sites.clear()
            site = self._sites[key] = _Site(now)
        if now - site.since >= self._period_s:
            self._say_omitted(record, site)
            site.since, site.count = now, 0
        site.count += 1
        return site.count <= self._most

    def _say_omitted(self, record: logging.LogRecord, site: _Site) -> None:
        omitted = site.count - self._most
        if omitted > 0:
            record.msg = f"{record.getMessage()} ({omitted} more like this were not written)"
            record.args = None


class _Site:
    """A line of code that logs."""

    __slots__ = ("count", "since")

    def __init__(self, since: float) -> None:
        self.since = since
        self.count = 0


def install() -> None:
    """Puts the limit on all handlers of the root logger; call it after logging is set up."""
    for handler in logging.getLogger().handlers:
        if not any(isinstance(known, Quiet) for known in handler.filters):
            handler.addFilter(Quiet())

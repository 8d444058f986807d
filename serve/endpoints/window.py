"""What deployments did since a moment, from counts of workers that come and go. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

from serve.endpoints.front.stats import Counts, added, since
from serve.endpoints.promotion import Seen

if TYPE_CHECKING:
    from serve.endpoints.front.stats import Report

_MS = 1000


class Window:
    """Counts since `reset`, whoever counted them.

    A worker that was not there at the reset is new, and all that it has counted belongs to the
    window; one that has gone leaves what it told last.
    """

    def __init__(self) -> None:
        self._last: dict[str, dict[str, Counts]] = {}
        self._totals: dict[str, Counts] = {}
        self._down_since: dict[str, float] = {}

    def reset(self, reports: Iterable[Report]) -> None:
        """The window begins here."""
        self._last = {report.worker: report.backends for report in reports}
        self._totals = {}

    def add(self, reports: Iterable[Report], now: float) -> None:
        """Takes in what the workers tell now.

        Args:
            reports: Of all workers.
            now: A clock that never goes back.
        """
        up: dict[str, bool] = {}
        for report in reports:
            before = self._last.get(report.worker, {})
            for name, counts in report.backends.items():
                earlier = before.get(name, Counts())
                # A deployment that was taken out and put in again is counted anew.
                step = since(counts, earlier) if counts.requests >= earlier.requests else counts
                self._totals[name] = added([self._totals.get(name, Counts()), step])
            self._last[report.worker] = report.backends
            for name, is_up in report.up.items():
                up[name] = up.get(name, False) or is_up
        self._note_down(up, now)

    def _note_down(self, up: dict[str, bool], now: float) -> None:
        down = {name for name, is_up in up.items() if not is_up}
        self._down_since = {name: self._down_since.get(name, now) for name in down}

    def seen(self, names: Collection[str], now: float) -> Seen:
        """What these deployments did together; `down_s` of the one that is down for longest."""
        total = added(self._totals[name] for name in names if name in self._totals)
        p95, p99 = total.quantile_s(0.95), total.quantile_s(0.99)
        down = [now - self._down_since[name] for name in names if name in self._down_since]
        return Seen(
            requests=total.requests,
            successes=total.successes,
            p95_ms=None if p95 is None else p95 * _MS,
            p99_ms=None if p99 is None else p99 * _MS,
            down_s=max(down, default=0.0),
        )

"""What the fleet does now: kept in memory from what arrives, for rollouts and for monitoring.

Also after a restart: what was stored of the last hour is read again.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NamedTuple

from edge.telemetry.inbox import Taken
from edge.telemetry.metrics import Traffic, finite, from_dict
from edge.telemetry.received import told
from edge.telemetry.store import Store

KEEP_S: Final = 3600.0
_MOST_LOOKS: Final = 32
"""Of each series; older ones are thinned out, by which a window begins a little later."""

_MOST_SERIES: Final = 200_000
_MOST_LOADED: Final = 1_000_000


class Series(NamedTuple):
    """Whose traffic it is.

    Attributes:
        site: Of the device.
        device: Its name.
        module: On it.
        package: That answered.
    """

    site: str
    device: str
    module: str
    package: str


class Look(NamedTuple):
    """A moment at which something was heard of a series.

    Attributes:
        at: In seconds since the epoch.
        before: All that had been heard of it until then.
    """

    at: float
    before: Traffic


class Live:
    """What arrived lately; any thread.

    Args:
        keep_s: For how long single looks are kept.
        clock: Seconds since the epoch.

    Attributes:
        totals: Of each series, since the start.
        resources: Site and device to what it said last of itself.
        dropped: Site and device to class to the number of records that it lost, ever.
    """

    def __init__(self, *, keep_s: float = KEEP_S, clock: Callable[[], float] = time.time) -> None:
        self.totals: dict[Series, Traffic] = {}
        self.resources: dict[tuple[str, str], dict[str, float]] = {}
        self.dropped: dict[tuple[str, str], Mapping[str, int]] = {}
        self._looks: dict[Series, deque[Look]] = {}
        self._series: dict[tuple[str, str], list[Series]] = {}
        self._keep_s = keep_s
        self._clock = clock
        self._lock = threading.Lock()

    def take(self, taken: Taken) -> None:
        """Hears what is new; a listener of `Ingest`."""
        delivery = taken.delivery
        with self._lock:
            if delivery.batch.dropped:
                self.dropped[delivery.site, delivery.device] = {
                    str(k): n for k, n in delivery.batch.dropped.items()
                }
            for record in taken.records:
                if record.kind in {"requests", "resources"}:
                    data = _object(bytes(record.data))
                    self._hear(delivery.site, delivery.device, record.kind, data, taken.at)

    def load(self, store: Store) -> int:
        """Forgets all, and hears what was stored of the last hour; returns how many records."""
        found = store.query(
            "SELECT site, device, kind, epoch(taken_at), data FROM records "
            "WHERE kind IN ('requests', 'resources') AND taken_at >= make_timestamp(?::BIGINT) "
            "ORDER BY taken_at LIMIT ?",
            [int((self._clock() - self._keep_s) * 1e6), _MOST_LOADED],
        )
        with self._lock:
            for table in (self.totals, self.resources, self._looks, self._series):
                table.clear()
            for site, device, kind, at, data in found.rows:
                self._hear(site, device, kind, _object(data.encode()), float(at))
        return len(found.rows)

    def traffic(
        self, device: str, module: str, *, package: str = "", since: float = 0.0
    ) -> Traffic:
        """What a module of a device answered.

        Args:
            device: Its name.
            module: Its name there.
            package: By this package alone.
            since: What arrived at this time or later, in seconds since the epoch.
        """
        with self._lock:
            return self._traffic(device, module, package, since)

    def sum(self, asked: Iterable[tuple[str, str, str, float]]) -> Traffic:
        """What several answered together: device, module, package and since when, each."""
        found = Traffic()
        with self._lock:
            for device, module, package, since in asked:
                found = found.plus(self._traffic(device, module, package, since))
        return found

    def _traffic(self, device: str, module: str, package: str, since: float) -> Traffic:
        found = Traffic()
        for series in self._series.get((device, module), ()):
            if package not in {"", series.package}:
                continue
            first = next((look for look in self._looks[series] if look.at >= since), None)
            if first is not None:
                found = found.plus(self.totals[series].since(first.before))
        return found

    def snapshot(self) -> Snapshot:
        """All of it, as it is now."""
        with self._lock:
            return Snapshot(dict(self.totals), dict(self.resources), dict(self.dropped))

    def _hear(self, site: str, device: str, kind: str, data: Mapping[str, Any], at: float) -> None:
        if kind == "resources":
            self.resources[site, device] = dict(_numbers(data))
            return
        series = Series(site, device, str(data.get("module", "")), str(data.get("package", "")))
        if series not in self.totals and len(self.totals) >= _MOST_SERIES:
            return
        before = self.totals.get(series)
        if before is None:
            before = Traffic()
            self._looks[series] = deque()
            self._series.setdefault((device, series.module), []).append(series)
        self.totals[series] = before.plus(from_dict(data))
        self._note(self._looks[series], Look(at, before))

    def _note(self, looks: deque[Look], new: Look) -> None:
        looks.append(new)
        while looks[0].at < new.at - self._keep_s:
            looks.popleft()
        if len(looks) > _MOST_LOOKS:
            kept = list(looks)
            half = len(kept) // 2
            looks.clear()
            looks.extend([*kept[:half:2], *kept[half:]])


class Snapshot(NamedTuple):
    """See the attributes of `Live`."""

    totals: dict[Series, Traffic]
    resources: dict[tuple[str, str], dict[str, float]]
    dropped: dict[tuple[str, str], Mapping[str, int]]


def _numbers(data: Mapping[str, Any], before: str = "") -> Iterable[tuple[str, float]]:
    for name, value in data.items():
        if isinstance(value, Mapping) and not before:
            yield from _numbers(value, f"{name}_")
        elif (number := finite(value)) is not None:
            yield f"{before}{name}", number


def _object(text: bytes) -> dict[str, Any]:
    found = told(text)
    return found if isinstance(found, dict) else {}

"""What monitoring is told of a fleet: one table of metrics, for every way out. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple

from edge.telemetry.ingest import Counts
from edge.telemetry.live import Series, Snapshot
from edge.telemetry.metrics import Traffic

Labels = Mapping[str, str]


class Histogram(NamedTuple):
    """Times of requests.

    Attributes:
        buckets: Upper bound to the number of those between it and the bound before.
        sum: Of all times.
    """

    buckets: Mapping[float, float]
    sum: float

    @property
    def total(self) -> float:
        """How many there are."""
        return sum(self.buckets.values())


class Point(NamedTuple):
    """One value of a metric, and whose it is."""

    labels: Labels
    value: float | Histogram


class Family(NamedTuple):
    """A metric.

    Attributes:
        name: Without the `_total` of counters.
        kind: As Prometheus calls it.
        help: One sentence.
        points: Its values.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    points: list[Point]


def families(snapshot: Snapshot, counts: Counts | None = None) -> list[Family]:
    """The metrics of a fleet."""
    totals = snapshot.totals
    found = [
        _counter("requests", "Requests that modules answered.", totals, "requests"),
        _counter("errors", "Requests answered with an error of the module.", totals, "errors"),
        _counter("rejected", "Requests turned away before the model.", totals, "rejected"),
        _counter("rows", "Rows of all runs of models.", totals, "rows"),
        Family(
            "fieldpost_fleet_request_duration_seconds",
            "histogram",
            "Time of requests, over all devices of a site.",
            list(_durations(totals)),
        ),
        Family(
            "fieldpost_fleet_device",
            "gauge",
            "What devices said last of themselves.",
            [
                Point({"site": site, "device": device, "what": what}, value)
                for (site, device), values in sorted(snapshot.resources.items())
                for what, value in sorted(values.items())
            ],
        ),
        Family(
            "fieldpost_fleet_records_dropped",
            "counter",
            "Records that devices lost to the caps of their spools.",
            [
                Point({"site": site, "device": device, "class": name}, float(number))
                for (site, device), numbers in sorted(snapshot.dropped.items())
                for name, number in sorted(numbers.items())
            ],
        ),
    ]
    if counts is not None:
        found.append(_ingested(counts))
    return [family for family in found if family.points]


def _counter(name: str, text: str, totals: Mapping[Series, Traffic], column: str) -> Family:
    points = [
        Point(series._asdict(), getattr(traffic, column))
        for series, traffic in sorted(totals.items())
    ]
    return Family(f"fieldpost_fleet_{name}", "counter", text, points)


def _durations(totals: Mapping[Series, Traffic]) -> Iterable[Point]:
    sums: dict[tuple[str, str, str], Traffic] = {}
    for series, traffic in totals.items():
        key = series.site, series.module, series.package
        sums[key] = sums.get(key, Traffic()).plus(traffic)
    for (site, module, package), traffic in sorted(sums.items()):
        labels = {"site": site, "module": module, "package": package}
        yield Point(labels, Histogram(traffic.latency, traffic.seconds))


def _ingested(counts: Counts) -> Family:
    pairs = {
        "stored": counts.records,
        "duplicate": counts.duplicates,
        "refused": counts.refused,
        "limited": counts.limited,
    }
    points = [Point({"outcome": name}, float(number)) for name, number in pairs.items()]
    return Family(
        "fieldpost_fleet_telemetry",
        "counter",
        "Telemetry that arrived: records stored and seen before, messages refused and limited.",
        points,
    )

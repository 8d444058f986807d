"""The metrics of a fleet to a collector: OTLP over HTTP, as JSON."""

from __future__ import annotations

import http.client
import math
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from edge.telemetry.families import Family, Histogram, Labels, Point
from scoring import __version__
from scoring.errors import UnreachableError, UsageError

_CUMULATIVE: Final = 2
_PATH: Final = "/v1/metrics"
_NANO: Final = 1_000_000_000
_TIMEOUT_S: Final = 10.0


class Exporter:
    """Sends metrics to one collector.

    Args:
        endpoint: As in `OTEL_EXPORTER_OTLP_ENDPOINT`: `/v1/metrics` is added to it.
        headers: As in `OTEL_EXPORTER_OTLP_HEADERS`; never shown.
        started: When counting began, in seconds since the epoch.

    Raises:
        UsageError: The endpoint is no HTTP URL.
    """

    def __init__(
        self, endpoint: str, *, started: float, headers: Mapping[str, str] | None = None
    ) -> None:
        parts = urlsplit(endpoint)
        if parts.scheme not in {"http", "https"} or not parts.netloc:
            raise UsageError(
                "The OTLP endpoint is no URL of HTTP.",
                hint="As in http://127.0.0.1:4318",
                where="endpoint",
            )
        self._url = endpoint.rstrip("/") + _PATH
        self._where = f"{parts.scheme}://{parts.hostname}"
        self._headers = {**(headers or {}), "Content-Type": "application/json"}
        self._started = started

    def send(self, families: Iterable[Family], at: float) -> None:
        """Sends what is known at a time.

        Raises:
            UnreachableError: The collector does not take it.
        """
        body = msgspec.json.encode(request(families, self._started, at))
        asked = urllib.request.Request(self._url, body, self._headers, method="POST")  # noqa: S310
        try:
            with urllib.request.urlopen(asked, timeout=_TIMEOUT_S) as answer:  # noqa: S310
                answer.read(1 << 16)
        except (OSError, ValueError, urllib.error.URLError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", None) or type(error).__name__
            raise UnreachableError(
                f"The collector at {self._where} does not take metrics: {reason}.",
                hint="Start it, or give another endpoint.",
            ) from None


def request(families: Iterable[Family], started: float, at: float) -> dict[str, Any]:
    """The message `ExportMetricsServiceRequest`, in OTLP's JSON."""
    times = {"startTimeUnixNano": str(int(started * _NANO)), "timeUnixNano": str(int(at * _NANO))}
    return {
        "resourceMetrics": [
            {
                "resource": {"attributes": _attributes({"service.name": "fieldpost-fleet"})},
                "scopeMetrics": [
                    {
                        "scope": {"name": "fieldpost.fleet", "version": __version__},
                        "metrics": [_metric(family, times) for family in families],
                    }
                ],
            }
        ]
    }


def _metric(family: Family, times: Mapping[str, str]) -> dict[str, Any]:
    points = [_point(point, times) for point in family.points]
    found: dict[str, Any] = {"name": family.name, "description": family.help}
    if family.kind == "gauge":
        return {**found, "gauge": {"dataPoints": points}}
    about = {"dataPoints": points, "aggregationTemporality": _CUMULATIVE}
    if family.kind == "histogram":
        return {**found, "unit": "s", "histogram": about}
    return {**found, "sum": {**about, "isMonotonic": True}}


def _point(point: Point, times: Mapping[str, str]) -> dict[str, Any]:
    found = {"attributes": _attributes(point.labels), **times}
    if not isinstance(point.value, Histogram):
        return {**found, "asDouble": point.value}
    finite = sorted((b, n) for b, n in point.value.buckets.items() if not math.isinf(b))
    counts = [*(n for _, n in finite), point.value.buckets.get(math.inf, 0.0)]
    return {
        **found,
        "count": str(int(point.value.total)),
        "sum": point.value.sum,
        "explicitBounds": [bound for bound, _ in finite],
        "bucketCounts": [str(int(count)) for count in counts],
    }


def _attributes(labels: Labels) -> list[dict[str, Any]]:
    return [{"key": name, "value": {"stringValue": text}} for name, text in labels.items()]

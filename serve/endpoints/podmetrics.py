"""What our servers say of their requests in `/metrics`, as counts of a deployment. Pure."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable

from serve.endpoints.front.stats import BOUNDS_S, Counts

_SAMPLE = re.compile(r"(?P<name>\w+)\{(?P<labels>[^}]*)\} (?P<value>\S+)")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
_REQUESTS = "fieldpost_requests_total"
_BUCKET = "fieldpost_request_duration_seconds_bucket"
# Probes and other routes that no model answers.
_NO_MODEL = "http"
_GRPC_FAILURES = frozenset(
    {"UNKNOWN", "DEADLINE_EXCEEDED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "ABORTED"}
)
_OK, _REFUSED, _FAILED = 200, 400, 500


def counts_of(lines: Iterable[str]) -> Counts:
    """The requests to models that a server has answered.

    Args:
        lines: Of its metrics.
    """
    counts = Counts()
    buckets: dict[tuple[str, ...], list[tuple[float, int]]] = {}
    for line in lines:
        match = _SAMPLE.match(line)
        if match is None or match["name"] not in (_REQUESTS, _BUCKET):
            continue
        labels = dict(_LABEL.findall(match["labels"]))
        if labels.get("protocol") == _NO_MODEL:
            continue
        number = int(float(match["value"]))
        if match["name"] == _REQUESTS:
            status = _status(labels.get("code", ""))
            counts.statuses[status] = counts.statuses.get(status, 0) + number
        else:
            of = tuple(labels.get(key, "") for key in ("model", "version", "protocol"))
            buckets.setdefault(of, []).append((float(labels["le"]), number))
    for series in buckets.values():
        _add(counts, sorted(series))
    return counts


def _add(counts: Counts, series: list[tuple[float, int]]) -> None:
    """Adds a histogram: what is in a bucket is counted at its upper end."""
    before = 0
    for bound, total in series:
        counts.buckets[bisect_left(BOUNDS_S, bound)] += total - before
        before = total


def _status(code: str) -> int:
    if code.isdigit():
        return int(code)
    if code == "OK":
        return _OK
    return _FAILED if code in _GRPC_FAILURES else _REFUSED

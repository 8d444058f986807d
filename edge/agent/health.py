"""Asking a worker on this device how it does: its probes, and what it counts of requests."""

from __future__ import annotations

import contextlib
import http.client
import re
from typing import Final, NamedTuple

_MOST_BYTES: Final = 4 << 20
_OK: Final = 200
_FAILED: Final = re.compile(
    r'^fieldpost_requests_total\{[^}]*code="(?:5\d\d|INTERNAL|UNKNOWN|UNAVAILABLE)"[^}]*\} (\S+)$',
    re.MULTILINE,
)
_REQUESTS: Final = re.compile(r"^fieldpost_requests_total\{[^}]*\} (\S+)$", re.MULTILINE)
_BUCKET: Final = re.compile(
    r'^fieldpost_request_duration_seconds_bucket\{[^}]*le="([^"]+)"[^}]*\} (\S+)$', re.MULTILINE
)
_SLOWEST: Final = 0.99


class Shown(NamedTuple):
    """What a worker has answered.

    Attributes:
        requests: How many.
        failed: How many of them with an error of its own.
        latency_s: What the slowest hundredth took at least; the greatest bound that is counted
            where it took longer than that.
    """

    requests: int = 0
    failed: int = 0
    latency_s: float = 0.0


def is_ready(port: int, timeout_s: float = 5.0) -> bool:
    """Whether the worker at this port says that it is ready."""
    status, _ = _get(port, "/health/ready", timeout_s)
    return status == _OK


def shown(port: int, timeout_s: float = 5.0) -> Shown:
    """What the worker counts; nothing where it does not say."""
    status, text = _get(port, "/metrics", timeout_s)
    return read(text) if status == _OK else Shown()


def read(text: str) -> Shown:
    """What a page of metrics says of requests."""
    return Shown(_sum(_REQUESTS, text), _sum(_FAILED, text), _latency(text))


def _sum(pattern: re.Pattern[str], text: str) -> int:
    return int(sum(map(float, pattern.findall(text))))


def _latency(text: str) -> float:
    buckets: dict[float, float] = {}
    for bound, count in _BUCKET.findall(text):
        value = float("inf") if bound == "+Inf" else float(bound)
        buckets[value] = buckets.get(value, 0.0) + float(count)
    total = buckets.get(float("inf"), 0.0)
    bounds = sorted(bound for bound in buckets if bound < float("inf"))
    if not total or not bounds:
        return 0.0
    return next((b for b in bounds if buckets[b] >= _SLOWEST * total), bounds[-1])


def _get(port: int, path: str, timeout_s: float) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_s)
    with contextlib.closing(connection):
        try:
            connection.request("GET", path, headers={"Connection": "close"})
            answer = connection.getresponse()
            return answer.status, answer.read(_MOST_BYTES).decode(errors="replace")
        except (OSError, http.client.HTTPException):
            return 0, ""

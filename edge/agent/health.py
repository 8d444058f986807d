"""Asking a worker on this device how it does: its probes, and what it counts of requests."""

from __future__ import annotations

import contextlib
import http.client
import math
from collections.abc import Mapping
from typing import Final, NamedTuple

from edge.telemetry import metrics
from edge.telemetry.metrics import Traffic

_MOST_BYTES: Final = 4 << 20
_OK: Final = 200
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


class Answer(NamedTuple):
    """What a worker answers to a request.

    Attributes:
        status: Of HTTP; 0 where it does not answer.
        body: The beginning of it.
    """

    status: int
    body: bytes


def score(port: int, body: bytes, timeout_s: float) -> Answer:
    """Asks the worker at this port to score."""
    headers = {"Content-Type": "application/json"}
    return Answer(*_ask(port, "POST", "/score", timeout_s, body, headers))


def is_ready(port: int, timeout_s: float = 5.0) -> bool:
    """Whether the worker at this port says that it is ready."""
    status, _ = _ask(port, "GET", "/health/ready", timeout_s)
    return status == _OK


def counted(port: int, timeout_s: float = 5.0) -> Traffic:
    """What the worker has counted since its start; nothing where it does not say."""
    status, body = _ask(port, "GET", "/metrics", timeout_s)
    text = body.decode(errors="replace") if status == _OK else ""
    return metrics.traffic(metrics.parse(text))


def shown(traffic: Traffic) -> Shown:
    """What requests say of a version that soaks."""
    slowest = traffic.quantile(_SLOWEST)
    if slowest == math.inf:
        slowest = max((b for b in traffic.latency if b < math.inf), default=0.0)
    return Shown(int(traffic.requests), int(traffic.errors), slowest)


def _ask(
    port: int,
    method: str,
    path: str,
    timeout_s: float,
    body: bytes | None = None,
    headers: Mapping[str, str] = {},
) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_s)
    with contextlib.closing(connection):
        try:
            connection.request(method, path, body, {**headers, "Connection": "close"})
            answer = connection.getresponse()
            return answer.status, answer.read(_MOST_BYTES)
        except (OSError, http.client.HTTPException):
            return 0, b""
